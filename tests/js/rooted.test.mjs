import assert from "node:assert/strict";
import { test } from "node:test";

import { parseGraph, topLogit } from "../../frontend_static/src/graph.js";
import { canExplain, followRoot, rootedGraph, unrooted } from "../../frontend_static/src/rooted.js";
import { createStore, initialState } from "../../frontend_static/src/state.js";
import { explain } from "../../frontend_static/src/actions.js";
import { unpruned } from "../../frontend_static/src/pruned-graph.js";
import { graphJson } from "./builders.mjs";

const file = parseGraph(graphJson());
const ids = (graph, bytes) => graph.nodes.filter(({ index }) => bytes[index]).map(({ id }) => id);

test("only what leads to the root stays, with its influence on the root", () => {
  const graph = rootedGraph(file, "1_7_2");
  assert.deepEqual(ids(graph, graph.inside), ["0_5_1", "1_7_2", "E_3_1"]);
  assert.equal(graph.links.count, 3);
  // 1_7_2 reads 0_5_1 with weight 1 and the token with 3; 0_5_1 passes all on to the token: 1, 0.25 and their shares.
  assert.equal(graph.node("E_3_1").influence, Math.fround(1) / 1.25);
  assert.equal(graph.node("0_5_1").influence, 1);
  assert.equal(graph.node("1_7_2").asTarget, 1);
  assert.equal(graph.node("3_42_2").asTarget, 0);
  assert.equal(graph.node("3_42_2").influence, null);
  assert.deepEqual([graph.metadata.replacement_score, graph.metadata.completeness_score], [1, 1]);
});

test("nodes keep their numbers, and the file's graph is still there", () => {
  const graph = rootedGraph(file, "1_7_2");
  assert.equal(graph.index("3_43_2"), file.index("3_43_2"));
  assert.equal(unrooted(graph), file);
});

test("tokens, errors and what isn't there can't be explained", () => {
  for (const id of ["E_3_1", "1_-1_2", "9_9_9"]) assert.equal(rootedGraph(file, id), null);
  assert.equal(canExplain(file, file.node("3_42_2")), true);
});

test("a root is one step of undo, and gives way where it isn't in the graph", () => {
  const store = createStore({ ...initialState(), graph: file, ...unpruned(file, [], []), selected: "1_-1_2" });
  const end = followRoot(store);
  explain(store, "0_5_1");
  explain(store, "1_7_2");
  assert.equal(store.get("graph").root, "1_7_2");
  store.undo();
  assert.equal(store.get("graph").root, "0_5_1");
  store.undo();
  assert.equal(store.get("graph"), file);
  store.redo();
  store.set({ graph: parseGraph(graphJson()) });
  assert.equal(store.get("graph").root, "0_5_1");
  store.set({ root: "gone" });
  assert.equal(store.get("root"), null);
  assert.equal(store.get("graph").root, undefined);
  end();
});

test("what is explained is what a view begins with", () => {
  assert.equal(topLogit(file).id, "3_43_2");
  assert.equal(topLogit(rootedGraph(file, "1_7_2")).id, "1_7_2");
  assert.equal(topLogit(parseGraph({ ...graphJson(), nodes: [] })), null);
});
