import assert from "node:assert/strict";
import { test } from "node:test";

import { parseGraph } from "../../frontend_static/src/graph.js";
import { prunedGraph, visibleNodes } from "../../frontend_static/src/pruned-graph.js";
import { createPruner, pruningInput } from "../../frontend_static/src/pruning.js";
import { pruningService } from "../../frontend_static/src/pruning-service.js";
import { leastKept } from "../../frontend_static/src/pruning-threshold.js";
import { graphJson } from "./builders.mjs";

const NAMES = ["f0", "f1", "e00", "e01", "e10", "e11", "t0", "t1", "y"];
const LINKS = [
  ["t0", "f0", -1],
  ["t1", "f0", 2],
  ["f0", "f1", 3],
  ["e01", "f1", 0.5],
  ["t1", "f1", 0.5],
  ["f0", "y", 1],
  ["f1", "y", 2],
  ["e01", "y", -0.5],
  ["e11", "y", 0.5],
  ["t1", "y", 1],
];
const CUMULATIVE = [0.57018, 0.7807, 1, 0.94737, 1, 1, 0.86842, 0.30702, Number.NaN];

/** The worked example of the methods: two features, four errors, two tokens, one output. */
function example(changes = {}) {
  const place = (name) => NAMES.indexOf(name);
  return {
    source: Int32Array.from(LINKS, ([from]) => place(from)),
    target: Int32Array.from(LINKS, ([, to]) => place(to)),
    weight: Float64Array.from(LINKS, ([, , weight]) => weight),
    kinds: Uint8Array.from([0, 0, 1, 1, 1, 1, 2, 2, 3]),
    targets: Float64Array.from([0, 0, 0, 0, 0, 0, 0, 0, 0.6]),
    cumulative: Float64Array.from(CUMULATIVE),
    ...changes,
  };
}

const near = (a, b, slack = 1e-9) => assert.ok(Math.abs(a - b) <= slack, `${a} isn't ${b}`);
const alive = (result) => NAMES.filter((_, i) => result.alive[i]);

test("the scores of a whole graph are those of the worked example", () => {
  const whole = createPruner(example()).point(1, 1);
  near(whole.replacement, 0.75);
  near(whole.completeness, 0.913793, 1e-6);
  near(whole.explained, 0.75);
});

test("nodes are kept up to the one that crosses the threshold, tokens and outputs always", () => {
  const pruner = createPruner(example());
  assert.deepEqual(alive(pruner.prune(0.8, 1)), ["f0", "f1", "t0", "t1", "y"]);
  assert.deepEqual(alive(pruner.prune(0.9, 1)), ["f0", "f1", "e01", "t0", "t1", "y"]);
  assert.deepEqual(alive(pruner.prune(0.5, 1)), ["f0", "t0", "t1", "y"]);
});

test("nodes with the influence of the one that crosses the threshold stay with it", () => {
  const links = [
    ["t0", "f0", 1],
    ["t0", "f1", 1],
    ["t0", "e00", 0],
    ["f0", "y", 1],
    ["f1", "y", 1],
    ["e01", "y", 0.5],
  ];
  const place = (name) => NAMES.indexOf(name);
  const tied = (cumulative) =>
    createPruner(
      example({
        source: Int32Array.from(links, ([from]) => place(from)),
        target: Int32Array.from(links, ([, to]) => place(to)),
        weight: Float64Array.from(links, ([, , weight]) => weight),
        cumulative,
      }),
    );
  // t0 holds 4/9 of all influence, f0 and f1 2/9 each, e01 1/9.
  const scores = Float64Array.from([6, 8, 9, 9, 9, 9, 4, 9, Number.NaN], (ninths) => ninths / 9);
  for (const cumulative of [scores, null]) {
    assert.deepEqual(alive(tied(cumulative).prune(0.6, 1)), ["f0", "f1", "t0", "t1", "y"]);
    assert.deepEqual(alive(tied(cumulative).prune(0.4, 1)), ["t0", "t1", "y"]);
    assert.deepEqual(alive(tied(cumulative).prune(0.95, 1)), ["f0", "f1", "e01", "t0", "t1", "y"]);
  }
});

test("links are scored among the nodes that are left, and the share is kept", () => {
  const pruner = createPruner(example());
  const names = (edgeThreshold) => {
    const { kept } = pruner.prune(0.8, edgeThreshold);
    return LINKS.filter((_, k) => kept[k]).map(([from, to]) => `${to}<${from}`);
  };
  assert.equal(names(0.98).length, 7);
  // y<f1 .30, f0<t1 .27, f1<f0 .257, then y<f0 .15 and y<t1 .15 tie, f0<t0 .136, f1<t1 .043, of 1.307 together.
  assert.deepEqual(names(0.6), ["f0<t1", "f1<f0", "y<f1"]);
  assert.deepEqual(names(0.7), ["f0<t1", "f1<f0", "y<f0", "y<f1", "y<t1"]);
});

test("what leads nowhere or comes from nowhere goes, with its links", () => {
  const result = createPruner(example()).prune(0.8, 0);
  assert.deepEqual(alive(result), ["t0", "t1", "y"]);
  assert.equal(result.kept.reduce((sum, byte) => sum + byte, 0), 0);
  assert.deepEqual([result.point.replacement, result.point.explained], [0, 0]);
});

test("without scores in the file nodes are ranked by the influence over its links", () => {
  const pruner = createPruner(example({ cumulative: null }));
  assert.deepEqual(alive(pruner.prune(0.9, 1)), ["f0", "f1", "e01", "t0", "t1", "y"]);
});

test("what is cut counts as unexplained, so that this number only falls", () => {
  const pruner = createPruner(example());
  const values = [1, 0.9, 0.8, 0.5].map((threshold) => pruner.point(threshold, 1).explained);
  for (let i = 1; i < values.length; i += 1) assert.ok(values[i] <= values[i - 1]);
  // Among f0, f1 and the tokens every path of the file that meets no error is left.
  near(values[2], 0.75);
});

test("the least score to keep", () => {
  const scores = Float32Array.of(0.5, 0, 0.25, 0.125, 0.125);
  assert.equal(leastKept(scores, 0), 0.5);
  assert.equal(leastKept(scores, 0.5), 0.5);
  assert.equal(leastKept(scores, 0.6), 0.25);
  assert.equal(leastKept(scores, 1), 0.125);
  assert.equal(leastKept(new Float32Array(3), 0.5), Infinity);
  assert.equal(leastKept(new Float32Array(0), 1), Infinity);
});

test("a cycle of links is reported instead of followed", () => {
  const circle = { source: Int32Array.of(0, 1), target: Int32Array.of(1, 0), weight: Float64Array.of(1, 1) };
  assert.throws(() => createPruner(example(circle)), /cycle/);
  const heard = [];
  pruningService((reply) => heard.push(reply))({ kind: "graph", input: example(circle) });
  assert.equal(heard[0].kind, "failed");
});

test("curves come in parts and end when others are asked for", () => {
  const [heard, waiting] = [[], []];
  let clock = 0;
  const receive = pruningService(
    (reply) => heard.push(reply),
    (run) => waiting.push(run),
    () => (clock += 20),
  );
  receive({ kind: "graph", input: example() });
  receive({ kind: "curves", id: 1, nodes: 1, links: 1, at: { nodes: [0.5, 1], links: [0.5, 1] } });
  assert.deepEqual(
    heard.map(({ axis, points }) => [axis, points.length]),
    [["links", 1]],
  );
  receive({ kind: "curves", id: 2, nodes: 1, links: 1, at: { nodes: [0.5, 1], links: [1] } });
  while (waiting.length > 0) waiting.shift()();
  assert.ok(heard.filter(({ id }) => id === 1).length === 1);
  const last = heard.filter(({ axis }) => axis === "nodes").at(-1);
  assert.deepEqual(
    last.points.map(({ at }) => at),
    [0.5, 1],
  );
  near(last.points[1].replacement, 0.75);
});

test("the pruned graph keeps numbers and shares, and the links of a pinned node that was cut", () => {
  const graph = parseGraph(graphJson());
  const { kept, alive: left } = createPruner(pruningInput(graph)).prune(0.2, 1);
  const shown = (pinned = []) => {
    const visible = visibleNodes(graph, left, pinned);
    return { visible, pruned: prunedGraph(graph, { kept, alive: left }, visible, pinned) };
  };
  const ids = ({ visible }) => graph.nodes.filter((node) => visible[node.index]).map((node) => node.id);
  assert.deepEqual(ids(shown()), ["0_5_1", "E_3_1", "3_42_2", "3_43_2"]);
  assert.equal(shown().pruned.links.count, 2);
  const { pruned, visible } = shown(["1_7_2"]);
  assert.ok(visible[graph.index("1_7_2")]);
  assert.equal(pruned.inputs(graph.index("1_7_2")).length, 2);
  assert.equal(pruned.links.share, graph.links.share);
  assert.equal(prunedGraph(graph, { kept: null, alive: null }, visible), graph);
  assert.ok(!visibleNodes(graph, null, [], ["0_5_1"])[graph.index("0_5_1")]);
});
