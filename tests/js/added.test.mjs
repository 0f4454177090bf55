import assert from "node:assert/strict";
import { test } from "node:test";

import { addNodes, expandRequest, fileOf, followAdded, withAdded } from "../../frontend_static/src/added.js";
import { NONE, readAdded } from "../../frontend_static/src/added-values.js";
import { explain } from "../../frontend_static/src/actions.js";
import { fromParams, toParams } from "../../frontend_static/src/annotations.js";
import { parseGraph } from "../../frontend_static/src/graph.js";
import { unpruned } from "../../frontend_static/src/pruned-graph.js";
import { followRoot } from "../../frontend_static/src/rooted.js";
import { createStore, initialState } from "../../frontend_static/src/state.js";
import { cantor, graphJson } from "./builders.mjs";

const json = graphJson();
const raw = { node_id: "0_9_2", feature_type: "cross layer transcoder", layer: "0", ctx_idx: 2, feature: cantor(0, 9), activation: 1.5 };
const links = [
  { source: "E_3_1", target: "0_9_2", weight: 2 },
  { source: "0_9_2", target: "1_7_2", weight: 4 },
  { source: "0_9_2", target: "not here", weight: 4 },
];
const answer = { nodes: [raw], links };
const whole = parseGraph({ ...json, nodes: [...json.nodes, raw], links: [...json.links, ...links] });
const listed = ({ links: found, nodes }) =>
  [...found.strongest].map((k) => [nodes[found.source[k]].id, nodes[found.target[k]].id, found.weight[k], found.share[k]]);

test("a graph with nodes added is that of a file that has them", () => {
  const file = parseGraph(json);
  const graph = withAdded(file, readAdded(answer));
  assert.deepEqual(listed(graph), listed(whole));
  assert.equal(graph.node("0_9_2").activation, 1.5);
  assert.equal(fileOf(graph), file);
  assert.equal(withAdded(whole, readAdded(answer)), whole);
  assert.deepEqual(expandRequest(graph, ["x"]).shown.at(-1), "0_9_2");
});

test("adding is one step of undo, keeps the selection, and goes with another root", () => {
  const file = parseGraph(json);
  const store = createStore({ ...initialState(), graph: file, ...unpruned(file, [], []), selected: "1_7_2" });
  followAdded(store);
  followRoot(store);
  addNodes(store, answer);
  assert.equal(store.get("graph").nodes.length, file.nodes.length + 1);
  assert.equal(store.get("selected"), "1_7_2");
  explain(store, "1_7_2");
  assert.equal(store.get("graph").inside[store.get("graph").index("0_9_2")], 1);
  assert.equal(fileOf(store.get("graph")), file);
  store.undo();
  store.undo();
  assert.equal(store.get("graph"), file);
  store.redo();
  assert.equal(store.get("graph").index("0_9_2"), file.nodes.length);
});

test("files keep what was added, and what can't be read is left out", () => {
  const added = readAdded({ nodes: [raw, { node_id: 3 }], links: [...links, { source: "a", target: "b", weight: null }] });
  assert.equal(added.links.length, 3);
  const { added: again } = fromParams(toParams({ ...initialState(), added }, 1));
  assert.deepEqual(again, added);
  for (const wrong of [undefined, 3, "x", { nodes: 3 }, []]) assert.equal(readAdded(wrong), NONE);
});

test("a graph that grows, or is read again, keeps what was added", () => {
  const file = parseGraph(json);
  const store = createStore({ ...initialState(), graph: file, ...unpruned(file, [], []), selected: null });
  followAdded(store);
  addNodes(store, answer);
  const again = parseGraph(json);
  store.set({ graph: again });
  assert.equal(fileOf(store.get("graph")), again);
  assert.equal(store.get("graph").index("0_9_2"), again.nodes.length);
  store.set({ graph: whole });
  assert.equal(store.get("graph"), whole);
});
