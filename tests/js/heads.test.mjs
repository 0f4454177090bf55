import assert from "node:assert/strict";
import { test } from "node:test";

import { parseGraph } from "../../frontend_static/src/graph.js";
import {
  answeredHeads,
  chipsOf,
  headMap,
  headName,
  headsByLink,
  headsRequest,
  linksOf,
  lookAt,
  lookRequest,
  sameHead,
  sourceName,
  storedHeads,
  throughHead,
} from "../../frontend_static/src/heads.js";
import { graphJson } from "./builders.mjs";

const graph = parseGraph(graphJson({ metadata: { scan: "my set" } }));
const place = (source, target) => {
  for (let link = 0; link < graph.links.count; link += 1)
    if (graph.links.source[link] === graph.index(source) && graph.links.target[link] === graph.index(target)) return link;
  return -1;
};
const [into, other] = [place("E_3_1", "1_7_2"), place("0_5_1", "1_7_2")];
const STORED = [
  ["E_3_1", "1_7_2", 3, [[0, 1, 1, 2], [1, 0, 1, -0.5]], 1.5],
  ["0_5_1", "1_7_2", -1, [[1, 0, 1, -1]], 0],
  ["gone", "1_7_2", 1, [[0, 0, 0, 1]], 0],
];
const byEnds = storedHeads(STORED);
const known = headsByLink(graph, byEnds);

test("a file's heads and an answer's are the same", () => {
  assert.ok(known.has(into) && !known.has(place("1_7_2", "3_42_2")));
  const edges = STORED.map(([source, target, weight, heads, rest]) => ({ source, target, weight, rest, heads: heads.map(([layer, head, position, value]) => ({ layer, head, position, value })) }));
  assert.deepEqual(answeredHeads(edges), byEnds);
  assert.deepEqual(known.get(into), { heads: [{ layer: 0, head: 1, position: 1, value: 2 }, { layer: 1, head: 0, position: 1, value: -0.5 }], rest: 1.5 });
});

test("a file that says all says that other links have none", () => {
  const whole = headsByLink(graph, byEnds, true);
  const link = place("1_7_2", "3_42_2");
  assert.ok(whole.has(link));
  assert.deepEqual(whole.get(link), { heads: [], rest: graph.links.weight[link] });
  assert.deepEqual(whole.get(into), known.get(into));
});

test("damaged entries of a file are left out", () => {
  const damaged = [["a", "b", 1, 3, 0], ["a", "b", 1, [7], 0], ["a", "b", 1, [[0, 1, "x", 2]], 0], ["a", "b", 1, [[0, 1, 2]], 0]];
  assert.equal(storedHeads(damaged).size, 0);
});

test("chips have shares of their link, but not of one that is nothing", () => {
  assert.deepEqual(chipsOf(known.get(into), 3, 3).map(({ share }) => share), [2 / 3, -0.5 / 3]);
  assert.deepEqual(chipsOf(known.get(into), 1e-9, 3).map(({ share }) => share), [null, null]);
});

test("the map adds up heads over links", () => {
  const map = headMap(graph, [into, other, place("1_7_2", "3_42_2")], known);
  assert.deepEqual(map.heads.map((one) => [headName(one), one.value, one.size, one.share]), [["L0H1", 2, 2, 0.5], ["L1H0", -1.5, 1.5, 0.375]]);
  assert.deepEqual([map.layers, map.width, map.most, map.known], [2, 2, 0.5, 2]);
  assert.deepEqual(headMap(graph, [], known).heads, []);
});

test("links are filtered by head", () => {
  assert.deepEqual(throughHead([into, other], known, { layer: 0, head: 1 }), [into]);
  assert.deepEqual(throughHead([into, other], known, null), [into, other]);
  assert.ok(sameHead({ layer: 1, head: 2 }, { layer: 1, head: 2, position: 3 }));
  assert.ok(!sameHead(null, { layer: 1, head: 2 }));
});

test("links of a node end at what is shown", () => {
  const visible = new Uint8Array(graph.nodes.length).fill(1);
  const node = graph.index("1_7_2");
  assert.deepEqual(new Set(linksOf(graph, node, "input", visible)), new Set([into, other]));
  visible[graph.index("0_5_1")] = 0;
  assert.deepEqual(linksOf(graph, node, "input", visible), [into]);
  assert.deepEqual(linksOf(graph, node, "output", visible), [place("1_7_2", "3_42_2")]);
});

test("questions name the prompt and the nodes", () => {
  assert.deepEqual(headsRequest(graph, [into]), { prompt: "a", prompt_tokens: ["<bos>", " a", "\n"], scan: "my set", edges: [["E_3_1", "1_7_2"]], n: 4 });
  const look = { layer: 1, head: 0, query: 2, key: null, against: 1 };
  assert.equal("key" in lookRequest(graph, look), false);
  assert.equal("against" in lookRequest(graph, look), false);
  assert.equal(lookRequest(graph, { ...look, key: 0, against: "rest" }).against, "rest");
});

test("a click takes a key, Shift compares, the same again takes it back", () => {
  const look = { layer: 1, head: 0, query: 4, key: null, against: null };
  const first = lookAt(look, 2);
  assert.deepEqual([first.key, first.against], [2, null]);
  const both = lookAt(first, 1, true);
  assert.deepEqual([both.key, both.against], [2, 1]);
  assert.equal(lookAt(both, 1, true).against, null);
  assert.equal(lookAt(both, 2, true), both);
  assert.equal(lookAt(both, 2).key, null);
  assert.equal(lookAt(look, 5), look);
  assert.equal(lookAt(look, 3, true).key, 3);
});

test("sources have names though the file lacks them", () => {
  assert.equal(sourceName(graph, "0_5_1").label, "first");
  assert.deepEqual(sourceName(graph, "2_9_1"), { node: null, label: "Feature 9", place: "L2 · a" });
  assert.equal(sourceName(graph, "2_-1_1").label, "Error · a");
  assert.equal(sourceName(graph, "E_9_1").label, "a");
});
