import assert from "node:assert/strict";
import { test } from "node:test";

import { fromParams } from "../../frontend_static/src/annotations.js";
import { parseGraph } from "../../frontend_static/src/graph.js";
import { exportAnnotations, fileName, importAnnotations } from "../../frontend_static/src/transfer.js";
import { graphJson } from "./builders.mjs";

const graph = parseGraph(graphJson());

function state(params) {
  const { savedPositions, ...annotations } = fromParams(params);
  return { slug: "t", graph, positions: {}, ...annotations };
}

test("what is exported is imported again", () => {
  const params = {
    pinnedIds: ["0_5_1", "1_7_2", "3_43_2"],
    supernodes: [["two", "0_5_1", "1_7_2"]],
    clerps: [["15", "mine"]],
    notes: { graph: "why?", nodes: { "1_7_2": "here" } },
  };
  const positions = { "0_5_1|1_7_2": [0.5, 0.75], "3_43_2": [0.25, 0.5] };
  const before = { ...state(params), positions, boxFrame: [400, 300] };
  const { edit, missing, other } = importAnnotations(exportAnnotations(before), graph);
  assert.deepEqual(edit.pinned, before.pinned);
  assert.deepEqual(edit.supernodes, before.supernodes);
  assert.deepEqual(edit.labels, { 15: "mine" });
  assert.deepEqual(edit.notes, before.notes);
  assert.deepEqual([edit.positions, edit.boxFrame], [positions, [400, 300]]);
  assert.equal(missing, 0);
  assert.equal(other, null);
});

test("graph files and bare qParams will do, and nodes that aren't there are counted", () => {
  const params = { pinnedIds: "0_5_1,gone", supernodes: '[["g","0_5_1","gone"],["h","gone"]]' };
  for (const document of [params, { metadata: { prompt: "other" }, qParams: params, nodes: [] }]) {
    const { edit, missing } = importAnnotations(JSON.stringify(document), graph);
    assert.deepEqual(edit.pinned, ["0_5_1"]);
    assert.deepEqual(edit.supernodes, [["g", "0_5_1"]]);
    assert.equal(missing, 1);
  }
  const { other } = importAnnotations(JSON.stringify({ prompt: "other", qParams: params }), graph);
  assert.equal(other, "other");
});

test("anything else is refused in words", () => {
  assert.throws(() => importAnnotations("{", graph), /isn't JSON/);
  for (const text of ["{}", "null", "5", "[]", '{"qParams": null}'])
    assert.throws(() => importAnnotations(text, graph), /no annotations/);
});

test("a slug becomes a file name", () => {
  assert.equal(fileName("demo-dallas", ".svg"), "demo-dallas.svg");
  assert.equal(fileName("../a b/ü?", ".svg"), "a-b-ü.svg");
  assert.equal(fileName("...", ".svg"), "graph.svg");
  assert.equal(fileName(null, ".svg"), "graph.svg");
});
