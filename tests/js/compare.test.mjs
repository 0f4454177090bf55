import assert from "node:assert/strict";
import { test } from "node:test";

import { comparison, differentSlots, largestMoves, merging, mostFrequent, partners, setAside, sideCounts } from "../../frontend_static/src/compare.js";
import { rawNodes } from "../../frontend_static/src/compact.js";
import { parseGraph } from "../../frontend_static/src/graph.js";
import { prunedGraph, visibleNodes } from "../../frontend_static/src/pruned-graph.js";
import { graphJson } from "./builders.mjs";

const withNodes = (key, values, metadata) => {
  const json = graphJson({ metadata });
  json.nodes = json.nodes.map((node, i) => (values[i] ? { ...node, [key]: values[i] } : node));
  return parseGraph(json);
};
const diff = (side, a, b, more = {}) => ({ side, class: side === "both" ? "shared" : `only_${side}`, share_a: a, share_b: b, ...more });
const COMPARED = withNodes(
  "diff",
  [diff("both", 0.5, 0.4), diff("a", 0.5, 0, { class: "unknown" }), diff("both", 0, 0), diff("both", 0, 0), diff("b", 0, 0.6), diff("both", 0, 0)],
  { diff: { a: { name: "x" }, b: { name: "y" }, slots: [["a", "a"], ["b", null], ["c", "d"]] } },
);
const MERGED = withNodes(
  "merged",
  [{ frequency: 1, mean_share: 0.2, low: 0.1, high: 0.3 }, { frequency: 0.25, mean_share: 0.1 }, { frequency: 0.5 }, { frequency: 1 }, { frequency: 1 }, { frequency: 0.75 }],
  { merged: { n: 4, level: "slots", members: ["a", "b", "c", "d"] } },
);

test("a file says what it was made of", () => {
  assert.equal(comparison(COMPARED).a.name, "x");
  assert.equal(merging(COMPARED), null);
  assert.equal(merging(MERGED).n, 4);
  assert.equal(comparison(MERGED), null);
  assert.deepEqual([comparison(null), merging(parseGraph(graphJson()))], [null, null]);
});

test("a token of several prompts is called by its own text, not by its slot", () => {
  const json = graphJson();
  const names = (more) => parseGraph({ ...json, nodes: json.nodes.map((node) => (node.node_id === "E_3_1" ? { ...node, clerp: "own", ...more } : node)) }).node("E_3_1").token;
  assert.deepEqual([names({}), names({ merged: { frequency: 1 } }), names({ diff: { side: "a" } })], [" a", "own", "own"]);
});

test("nodes that too few prompts have are set aside, unless they are pinned", () => {
  assert.equal(setAside(MERGED, 0, "all"), null);
  assert.deepEqual([...setAside(MERGED, 0.5, "all")], [0, 1, 0, 0, 0, 0]);
  assert.deepEqual([...setAside(MERGED, 3 / 4, "all")], [0, 1, 1, 0, 0, 0]);
  const pinned = MERGED.nodes[1].id;
  assert.deepEqual([...visibleNodes(MERGED, null, [pinned], [], setAside(MERGED, 1, "all"))], [1, 1, 0, 1, 1, 0]);
  assert.equal(setAside(parseGraph(graphJson()), 1, "a"), null);
});

test("links of nodes that are set aside are left out", () => {
  const aside = setAside(MERGED, 0.5, "all");
  const whole = { kept: null, alive: null };
  const left = prunedGraph(MERGED, whole, visibleNodes(MERGED, null, [], [], aside), [], aside);
  const gone = MERGED.inputs(1).length + MERGED.outputs(1).length;
  assert.ok(gone > 0);
  assert.equal(left.links.count, MERGED.links.count - gone);
  assert.equal(left.inputs(1).length, 0);
  assert.equal(prunedGraph(MERGED, whole, visibleNodes(MERGED, null)), MERGED);
});

test("one side of a comparison can be shown alone", () => {
  assert.deepEqual(sideCounts(COMPARED), { all: 6, a: 1, both: 4, b: 1 });
  assert.deepEqual([...setAside(COMPARED, 0, "a")], [1, 0, 1, 1, 1, 1]);
  assert.deepEqual(COMPARED.nodes.slice(0, 2).map((node) => node.diff.certain), [true, false]);
});

test("the largest changes come first, those within noise last", () => {
  assert.deepEqual(largestMoves(COMPARED).map((node) => node.index), [1, 0]);
  const noisy = withNodes("diff", [diff("both", 0.1, 0.2), diff("both", 0.9, 0, { noise: true })], {});
  assert.deepEqual(largestMoves(noisy).map((node) => node.index), [0, 1]);
  assert.deepEqual(differentSlots(comparison(COMPARED)), [[1, "b", null], [2, "c", "d"]]);
});

test("the most frequent nodes come first", () => {
  const order = mostFrequent(MERGED, new Uint8Array(6).fill(1)).map((node) => node.index);
  assert.deepEqual(order, [0, 3, 4, 5, 2, 1]);
});

test("graphs of single prompts are offered, those of the same set first", () => {
  const graphs = [{ slug: "me", scan: "s" }, { slug: "far", scan: "t" }, { slug: "near", scan: "s" }, { slug: "union", scan: "s", merged: {} }, { slug: "both", scan: "s", diff: {} }];
  assert.deepEqual(partners(graphs, "me", "s").map(({ slug }) => slug), ["near", "far"]);
});

test("the compact form keeps what the panel reads", () => {
  const header = { ids: ["0_1_0"], types: ["cross layer transcoder"], type: [0], layer: ["0"], clerp: {}, merged: { 0: { frequency: 0.5, mean_share: 0.1 } }, diff: {} };
  const columns = { feature: [2], ctx_idx: [0], token_prob: [0], influence: [0.1], activation: [1] };
  const [node] = rawNodes({ header, columns });
  assert.deepEqual([node.merged.frequency, node.diff], [0.5, null]);
});
