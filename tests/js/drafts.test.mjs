import assert from "node:assert/strict";
import { test } from "node:test";

import { acceptDraft, acceptDrafts, discardDrafts, followDrafts, handMade, propose } from "../../frontend_static/src/drafts.js";
import { parseGraph } from "../../frontend_static/src/graph.js";
import { createStore, initialState } from "../../frontend_static/src/state.js";
import { makeBoxes } from "../../frontend_static/src/supernodes.js";
import { cantor, graphJson } from "./builders.mjs";

/* Two pairs of twins at positions 1 and 2, and a feature that does the opposite of one pair. */
const node = (layer, feature, position, clerp = "") => ({
  node_id: `${layer}_${feature}_${position}`,
  feature_type: "cross layer transcoder",
  layer: String(layer),
  ctx_idx: position,
  feature: cantor(layer, feature),
  clerp,
  influence: 0.5,
});
const token = (position) => ({ node_id: `E_3_${position}`, feature_type: "embedding", layer: "E", ctx_idx: position, feature: 0, influence: 0.5 });
const nodes = [
  token(1),
  token(2),
  node(0, 1, 1, "Dallas"),
  node(0, 2, 1, "Dallas"),
  node(1, 3, 2, "Texas"),
  node(1, 4, 2, "Texas"),
  node(1, 5, 2, "not Texas"),
  { node_id: "3_42_2", feature_type: "logit", layer: "3", ctx_idx: 2, feature: 42, token_prob: 0.5, clerp: 'Output "Austin" (p=0.500)', influence: null },
];
const link = (source, target, weight) => ({ source, target, weight });
const links = [
  link("E_3_1", "0_1_1", 1),
  link("E_3_1", "0_2_1", 2),
  ...["1_3_2", "1_4_2"].flatMap((id) => [link("0_1_1", id, 1), link("0_2_1", id, 1), link("E_3_2", id, 0.5), link(id, "3_42_2", 2)]),
  link("0_1_1", "1_5_2", 1),
  link("0_2_1", "1_5_2", 1),
  link("1_5_2", "3_42_2", -1),
];

function storeOf(state = {}, metadata = {}) {
  const graph = parseGraph(graphJson({ nodes, links, metadata }));
  return createStore({ ...initialState(), graph, visible: graph.nodes.map(() => true), ...state });
}
const names = (store) => store.get("drafts").groups.map(({ name, ids }) => [name, ...ids]);

test("twins are proposed as groups, what opposes them stays apart, and nothing is edited", () => {
  const store = storeOf();
  propose(store);
  assert.deepEqual(names(store).sort(), [["Dallas, at a", "0_1_1", "0_2_1"], ["say Austin", "1_3_2", "1_4_2"]]);
  assert.deepEqual([store.get("pinned"), store.get("supernodes"), store.get("canUndo") ?? false], [[], [], false]);
  const boxes = makeBoxes(store.get("graph"), ["0_1_1", "1_5_2"], [], [], store.get("drafts").groups);
  assert.deepEqual(boxes.map((box) => [Boolean(box.draft), box.members.length]), [[true, 2], [true, 2], [false, 1]]);
});

test("all drafts are accepted in one edit, which one undo takes back", () => {
  const store = storeOf({ pinned: ["1_5_2"] });
  propose(store);
  acceptDrafts(store);
  assert.equal(store.get("supernodes").length, 2);
  assert.deepEqual([...store.get("pinned")].sort(), ["0_1_1", "0_2_1", "1_3_2", "1_4_2", "1_5_2"]);
  assert.equal(store.get("drafts"), null);
  store.undo();
  assert.deepEqual([store.get("pinned"), store.get("supernodes")], [["1_5_2"], []]);
});

test("one draft is accepted and the others stay; a group made by hand only grows", () => {
  const store = storeOf({ pinned: ["0_1_1", "1_5_2"], supernodes: [["mine", "0_1_1", "1_5_2"]] });
  const stop = followDrafts(store);
  propose(store);
  const [say] = store.get("drafts").groups.filter(({ kept }) => !kept);
  acceptDraft(store, say);
  assert.deepEqual(store.get("supernodes"), [["mine", "0_1_1", "1_5_2"], ["say Austin", "1_3_2", "1_4_2"]]);
  assert.ok(store.get("drafts").groups.every(({ name, ids }) => name !== "mine" || (ids.includes("0_1_1") && ids.includes("1_5_2"))));
  store.undo();
  assert.ok(store.get("drafts").groups.some(({ ids }) => ids.includes("1_3_2") && ids.includes("1_4_2")));
  discardDrafts(store);
  assert.equal(store.get("drafts"), null);
  stop();
});

test("groups that the command wrote and nobody changed are made anew, others are kept", () => {
  const groups = [{ name: "auto", nodes: ["1_3_2", "1_5_2"], kept: false }];
  const store = storeOf({ supernodes: [["auto", "1_5_2", "1_3_2"], ["renamed", "0_1_1", "0_2_1"]] }, { grouping: { groups } });
  assert.deepEqual(handMade(store.get("graph"), store.get("supernodes")), [["renamed", "0_1_1", "0_2_1"]]);
  propose(store);
  acceptDrafts(store);
  assert.deepEqual(store.get("supernodes").map(([name]) => name).sort(), ["renamed", "say Austin"]);
});

test("drafts go with another graph", () => {
  const store = storeOf();
  followDrafts(store);
  propose(store, { level: 0.9, across: true });
  assert.deepEqual([store.get("drafts").level, store.get("drafts").across], [0.9, true]);
  store.set({ graph: parseGraph(graphJson()) });
  assert.equal(store.get("drafts"), null);
});
