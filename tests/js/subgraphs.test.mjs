import assert from "node:assert/strict";
import { test } from "node:test";

import { fromParams, toParams } from "../../frontend_static/src/annotations.js";
import { parseGraph } from "../../frontend_static/src/graph.js";
import { addedEdit, names, removedEdit, renamedEdit, shownEdit } from "../../frontend_static/src/subgraphs.js";
import { graphJson } from "./builders.mjs";

const graph = parseGraph(graphJson());
const start = { pinned: ["0_5_1", "1_7_2"], supernodes: [], positions: {}, boxFrame: null, expanded: [], subgraphs: [], subgraphName: "" };
const saved = (state) => toParams({ labels: {}, hidden: [], notes: { graph: "", nodes: {} }, otherParams: {}, threshold: null, linkType: "both", ...state }, 1);

test("a graph has one subgraph until another is added, and its file is as before", () => {
  assert.deepEqual(names(start), ["Subgraph 1"]);
  assert.equal("subgraphs" in saved(start), false);
});

test("a new one is empty, a copy isn't, and each comes back with what it held", () => {
  const second = { ...start, ...addedEdit(graph, start, false) };
  assert.deepEqual(names(second), ["Subgraph 1", "Subgraph 2"]);
  assert.deepEqual(second.pinned, []);
  const filled = { ...second, pinned: ["E_3_1"], positions: { E_3_1: [0.5, 0.25] }, boxFrame: [200, 100] };
  const first = { ...filled, ...shownEdit(graph, filled, "Subgraph 1") };
  assert.deepEqual(first.pinned, ["0_5_1", "1_7_2"]);
  const back = { ...first, ...shownEdit(graph, first, "Subgraph 2") };
  assert.deepEqual([back.pinned, back.positions, back.boxFrame], [["E_3_1"], { E_3_1: [0.5, 0.25] }, [200, 100]]);
  const copy = { ...back, ...addedEdit(graph, back, true) };
  assert.deepEqual([copy.subgraphName, copy.pinned], ["Subgraph 2 copy", ["E_3_1"]]);
});

test("names are unique, and the neighbour of one that is taken away is shown", () => {
  const two = { ...start, ...addedEdit(graph, start, true) };
  assert.equal(renamedEdit(graph, two, "Subgraph 1"), null);
  const renamed = { ...two, ...renamedEdit(graph, two, " early layers ") };
  assert.deepEqual(names(renamed), ["Subgraph 1", "early layers"]);
  const left = { ...renamed, ...removedEdit(graph, renamed) };
  assert.deepEqual([left.subgraphName, left.pinned], ["Subgraph 1", ["0_5_1", "1_7_2"]]);
});

test("files keep them in a form that other pages skip, the shown one where they expect it", () => {
  const two = { ...start, ...addedEdit(graph, start, false) };
  const params = saved({ ...two, pinned: ["E_3_1"] });
  assert.deepEqual(params.pinnedIds, ["E_3_1"]);
  assert.equal(params.subgraph, "Subgraph 2");
  assert.deepEqual(params.subgraphs.map(({ name, pinnedIds }) => [name, pinnedIds]), [["Subgraph 1", ["0_5_1", "1_7_2"]], ["Subgraph 2", ["E_3_1"]]]);
  const read = fromParams(params);
  assert.deepEqual([read.subgraphName, read.subgraphs.length, read.otherParams], ["Subgraph 2", 2, {}]);
  assert.deepEqual(fromParams({ subgraphs: [{ nothing: 1 }, 5, { name: "a" }, { name: "a" }] }).subgraphs, [{ name: "a" }]);
});
