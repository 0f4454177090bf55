import assert from "node:assert/strict";
import { test } from "node:test";

import { differenceCaveat, outputs, readDifference, withDifference, writeDifference } from "../../frontend_static/src/difference.js";
import { parseGraph } from "../../frontend_static/src/graph.js";
import { indexLinks } from "../../frontend_static/src/links.js";
import { strongestPaths } from "../../frontend_static/src/paths.js";
import { prunedGraph, visibleNodes } from "../../frontend_static/src/pruned-graph.js";
import { graphJson } from "./builders.mjs";

const LINKS = [
  ["E_3_1", "0_5_1", 3],
  ["0_5_1", "1_7_2", -1],
  ["E_3_1", "1_7_2", 3],
  ["1_7_2", "3_42_2", 2],
  ["1_-1_2", "3_42_2", -2],
  ["0_5_1", "3_42_2", 1.5],
  ["0_5_1", "3_43_2", 0.5],
  ["1_-1_2", "3_43_2", -2],
].map(([source, target, weight]) => ({ source, target, weight }));

function twoOutputs(first = "Austin", second = "Dallas") {
  const nodes = graphJson().nodes.map((node) =>
    node.node_id === "3_42_2"
      ? { ...node, clerp: `Output "${first}" (p=0.250)` }
      : node.node_id === "3_43_2"
        ? { ...node, clerp: `Output "${second}" (p=0.500)` }
        : node,
  );
  return parseGraph(graphJson({ nodes, links: LINKS }));
}

const linksOf = (graph, numbers) =>
  [...numbers].map((k) => [graph.nodes[graph.links.source[k]].id, graph.links.weight[k]]);

test("the node has, per source, the weight into the one output minus that into the other", () => {
  const graph = withDifference(twoOutputs(), "Austin__vs__Dallas");
  const node = graph.nodes.at(-1);
  assert.equal(node.id, "virtual-diff-Austin-vs-Dallas");
  assert.equal(node.logitToken, "Austin − Dallas");
  assert.equal(graph.node(node.id), node);
  // The error's two links are equal, so that it says nothing about the difference.
  assert.deepEqual(linksOf(graph, graph.inputs(node.index)), [
    ["1_7_2", 2],
    ["0_5_1", 1],
  ]);
  assert.equal(graph.links.inputAbsSum[node.index], 3);
  assert.equal(graph.base.nodes.length, 6);
  assert.equal(withDifference(graph, null), graph.base);
});

test("its indexes are those that indexing all links anew would give", () => {
  const graph = withDifference(twoOutputs(), "Dallas__vs__Austin");
  const { source, target, weight } = graph.links;
  const anew = indexLinks(source, target, weight, graph.nodes.length);
  for (const key of ["strongest", "byTarget", "targetStart", "bySource", "sourceStart", "share"])
    assert.deepEqual([...graph.links[key]], [...anew[key]], key);
});

test("outputs of equal text are told apart by their ids", () => {
  const file = twoOutputs("same", "same");
  const [a, b] = outputs(file);
  assert.deepEqual([a.id, b.id], ["3_43_2", "3_42_2"]);
  const text = writeDifference(file, a, b);
  assert.equal(text, "3_43_2__vs__3_42_2");
  assert.deepEqual(readDifference(file, text), { a, b });
  assert.equal(withDifference(file, text).nodes.at(-1).logitToken, "same (50 %) − same (25 %)");
});

test("what an address may say", () => {
  const file = twoOutputs(" a__vs__b", "c");
  const read = (text) => {
    const pair = readDifference(file, text);
    return pair && [pair.a.id, pair.b.id];
  };
  assert.deepEqual(read(" a__vs__b__vs__c"), ["3_42_2", "3_43_2"]);
  assert.deepEqual(read("a__vs__b__vs__c"), ["3_42_2", "3_43_2"]);
  assert.deepEqual(read(writeDifference(file, ...outputs(file))), ["3_43_2", "3_42_2"]);
  for (const text of [null, undefined, "", "c", "c__vs__c", "c__vs__zebra", "__vs__"]) assert.equal(read(text), null);
  assert.equal(withDifference(file, "c__vs__zebra"), file);
});

test("paths end there if it's asked for, and in the outputs otherwise", () => {
  const graph = withDifference(twoOutputs(), "Austin__vs__Dallas");
  const all = new Uint8Array(graph.nodes.length).fill(1);
  const last = graph.nodes.length - 1;
  const own = strongestPaths(graph, all, { through: last });
  assert.ok(own.length > 0);
  for (const { nodes } of own) assert.equal(nodes.at(-1), last);
  // E → f7 with share ¾, f7 → difference with share ⅔.
  assert.ok(Math.abs(own[0].strength - 0.5) < 1e-6);
  for (const { nodes } of strongestPaths(graph, all)) assert.notEqual(nodes.at(-1), last);
});

test("a pruned graph keeps the difference's links with either of those behind them", () => {
  const graph = withDifference(twoOutputs(), "Austin__vs__Dallas");
  const kept = Uint8Array.from(LINKS, ({ target }) => (target === "3_43_2" ? 1 : 0));
  const alive = new Uint8Array(6).fill(1);
  const visible = visibleNodes(graph, alive);
  assert.equal(visible.at(-1), 1);
  const pruned = prunedGraph(graph, { kept, alive }, visible);
  assert.deepEqual(linksOf(pruned, pruned.inputs(graph.nodes.length - 1)), [["0_5_1", 1]]);
});

test("a difference from which links are missing says so", () => {
  const graph = twoOutputs();
  const [a, b] = outputs(graph);
  const none = { ...graph, inputs: (index) => (index === b.index ? [] : graph.inputs(index)) };
  const empty = differenceCaveat(none, { a, b });
  assert.equal(empty.isEmpty, true);
  assert.match(empty.text, new RegExp(`no links into “${b.logitToken.trim()}”`));
  assert.match(empty.text, /--target "/);
  const uneven = differenceCaveat(graph, { a, b });
  assert.equal(uneven.isEmpty, false);
  assert.match(uneven.text, /2 links into “Dallas” and 3 into “Austin”/);
  const equal = { ...graph, inputs: () => [0, 1] };
  assert.equal(differenceCaveat(equal, { a, b }), null);
});
