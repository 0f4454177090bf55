import assert from "node:assert/strict";
import { test } from "node:test";

import { parseGraph } from "../../frontend_static/src/graph.js";
import { activeFilters, findNodes } from "../../frontend_static/src/node-filter.js";
import { attributes, axis, isInside } from "../../frontend_static/src/scatter-data.js";
import { graphJson } from "./builders.mjs";

const graph = parseGraph(graphJson());

function ids(filters = {}, query = "", more = {}) {
  const state = {
    graph,
    visible: new Uint8Array(graph.nodes.length).fill(1),
    pinned: ["E_3_1"],
    labels: {},
    featureLabels: {},
    notes: { graph: "", nodes: { "1_7_2": "look here" } },
    query,
    filters,
    ...more,
  };
  return findNodes(state).map((node) => node.id);
}

test("kinds, pins and notes", () => {
  assert.deepEqual(ids({ kind: "feature" }), ["0_5_1", "1_7_2"]);
  assert.deepEqual(ids({ kind: "pinned" }), ["E_3_1"]);
  assert.deepEqual(ids({ kind: "noted" }), ["1_7_2"]);
  assert.deepEqual(ids({}, "look"), ["1_7_2"]);
  assert.equal(ids({}, "", { visible: new Uint8Array(graph.nodes.length) }).length, 0);
  assert.deepEqual(findNodes({ graph: null }), []);
});

test("ranges hold both ends, are open where nothing is given, and leave out nodes without a value", () => {
  assert.deepEqual(ids({ layer: [1, 1] }), ["1_-1_2", "1_7_2"]);
  assert.deepEqual(ids({ influence: [15, null] }), ["0_5_1", "1_-1_2"]);
  assert.deepEqual(ids({ activation: [0, null] }), ["0_5_1"]);
  assert.equal(ids({ layer: [null, null] }).length, graph.nodes.length);
  assert.equal(activeFilters({ layer: [1, null], position: [null, null], kind: "feature" }), 1);
});

test("orders", () => {
  assert.deepEqual(ids({ kind: "feature", sort: "layer" }), ["1_7_2", "0_5_1"]);
  assert.deepEqual(ids({ sort: "activation" })[0], "0_5_1");
  assert.deepEqual(ids({ sort: "position" })[0], "E_3_1");
  assert.deepEqual(ids({ sort: "nonsense" }), ids());
});

test("attributes are the numbers that differ between nodes", () => {
  const names = attributes(graph).map(({ name }) => name);
  assert.deepEqual(names.slice(0, 3), ["layer", "position", "ownInfluence"]);
  assert.ok(!names.includes("index"));
  assert.ok(!names.includes("activation"), "only one node has an activation");
  const { values } = attributes(graph).find(({ name }) => name === "inputs");
  assert.equal(values[graph.index("3_42_2")], 2);
});

test("axes have round ticks within their range", () => {
  for (const values of [[0, 1], [-3.7, 12], [1e-6, 2e-6], [5, 5], [1e9, 3e9], [Number.NaN], [0, 0.8]]) {
    const { low, high, ticks } = axis(values);
    assert.ok(ticks.length >= 2 && ticks.length <= 14, `${values}: ${ticks}`);
    assert.ok(ticks.every((tick) => tick >= low && tick <= high));
    for (const value of values) assert.ok(Number.isNaN(value) || (value > low && value < high));
  }
  assert.deepEqual(axis([0, 0.8]).ticks, [0, 0.2, 0.4, 0.6, 0.8]);
});

test("a lasso holds what is inside, also where it is concave", () => {
  const hook = [
    [0, 0],
    [10, 0],
    [10, 10],
    [8, 10],
    [8, 2],
    [0, 2],
  ];
  assert.ok(isInside(hook, 1, 1));
  assert.ok(isInside(hook, 9, 9));
  assert.ok(!isInside(hook, 4, 6));
  assert.ok(!isInside([], 0, 0));
});
