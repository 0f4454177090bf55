import assert from "node:assert/strict";
import { test } from "node:test";

import {
  cantor,
  matchesQuery,
  maxThreshold,
  outputToken,
  parseGraph,
  uncantor,
} from "../../frontend_static/src/graph.js";
import { graphJson } from "./builders.mjs";

test("kinds, layers and names are read from the file", () => {
  const graph = parseGraph(graphJson());
  assert.deepEqual(
    graph.nodes.map((node) => node.kind),
    ["feature", "feature", "error", "token", "logit", "logit"],
  );
  assert.deepEqual(
    graph.nodes.map((node) => node.layer),
    [0, 1, 1, -1, 2, 2],
  );
  assert.equal(graph.node("1_7_2").feature, 7);
  assert.equal(graph.node("3_42_2").logitToken, ' "x" (y)');
  assert.equal(graph.node("3_42_2").probability, 0.25);
  assert.equal(graph.node("nope"), null);
});

test("links with a missing end are dropped and the others are normalised per target", () => {
  const graph = parseGraph(graphJson());
  assert.equal(graph.links.count, 6);
  const target = graph.index("1_7_2");
  const shares = [...graph.inputs(target)].map((k) => graph.links.share[k]);
  assert.deepEqual(shares, [0.75, -0.25]);
  assert.equal(graph.links.inputAbsSum[target], 4);
  for (let node = 0; node < graph.nodes.length; node += 1) {
    const sum = [...graph.inputs(node)].reduce((total, k) => total + Math.abs(graph.links.share[k]), 0);
    assert.ok(sum === 0 || Math.abs(sum - 1) < 1e-6);
  }
});

test("inputs and outputs list every link once, strongest first", () => {
  const graph = parseGraph(graphJson());
  const incoming = graph.nodes.flatMap((node) => [...graph.inputs(node.index)]);
  const outgoing = graph.nodes.flatMap((node) => [...graph.outputs(node.index)]);
  assert.deepEqual([...incoming].sort(), [0, 1, 2, 3, 4, 5]);
  assert.deepEqual([...outgoing].sort(), [0, 1, 2, 3, 4, 5]);
  for (const node of graph.nodes) {
    const sizes = [...graph.outputs(node.index)].map((k) => Math.abs(graph.links.share[k]));
    assert.deepEqual(
      sizes,
      [...sizes].sort((a, b) => b - a),
    );
  }
});

test("nothing is changed in the file's object, and the model can't be changed", () => {
  const json = graphJson();
  const before = JSON.stringify(json);
  const graph = parseGraph(json);
  assert.equal(JSON.stringify(json), before);
  assert.throws(() => {
    graph.nodes[0].layer = 5;
  }, TypeError);
});

test("odd files don't throw", () => {
  assert.equal(parseGraph({}).nodes.length, 0);
  assert.equal(parseGraph({ metadata: {}, nodes: [], links: [] }).links.count, 0);
  const weights = [Number.NaN, null, "1", Number.POSITIVE_INFINITY].map((weight) => ({
    source: "E_3_1",
    target: "0_5_1",
    weight,
  }));
  const odd = parseGraph(graphJson({ links: weights }));
  assert.equal(odd.links.count, 0);
  assert.equal(odd.leftOut, 4);
  assert.equal(parseGraph(graphJson({ metadata: { edges_left_out: 7 } })).leftOut, 7); // the server left them out already
  assert.equal(parseGraph(graphJson()).leftOut, 0);
});

test("ids that collide, as in old files, are counted and the first keeps the id", () => {
  const nodes = [...graphJson().nodes, { ...graphJson().nodes[2], node_id: "0_5_1" }];
  const graph = parseGraph(graphJson({ nodes }));
  assert.equal(graph.duplicates, 1);
  assert.equal(graph.node("0_5_1").kind, "feature");
});

test("feature numbers of old files are taken as they are", () => {
  const nodes = [{ ...graphJson().nodes[0], node_id: "x", feature: 5 }];
  assert.equal(
    parseGraph(graphJson({ nodes, links: [], metadata: { schema_version: null } })).nodes[0].feature,
    5,
  );
});

test("cantor pairing and its inverse, also where a square root in floating point would be off", () => {
  assert.equal(cantor(0, 6200), 19229300);
  assert.equal(cantor(24, 2394), 2926965);
  assert.equal(cantor(25, 16383), 134635819);
  for (const [layer, feature] of [
    [0, 0],
    [1, 0],
    [0, 1],
    [47, 262143],
    [3, 94906265],
    [0, 94906264],
  ]) {
    assert.deepEqual(uncantor(cantor(layer, feature)), [layer, feature]);
  }
});

test("a label that isn't in the usual form is kept whole", () => {
  assert.equal(outputToken("Austin - Dallas"), "Austin - Dallas");
  assert.equal(outputToken('Output "" (p=0.1)'), "");
  assert.equal(outputToken('Output "a\nb" (p=0.1)'), "a\nb");
});

test("the node slider ends at the threshold of the file, wherever that stands, else at 1", () => {
  const limit = (metadata) => maxThreshold(parseGraph(graphJson({ metadata })));
  assert.equal(limit({}), 0.8);
  assert.equal(limit({ node_threshold: null, pruning_settings: { node_threshold: 0.7 } }), 0.7);
  assert.equal(limit({ node_threshold: null }), 1);
  assert.equal(limit({ node_threshold: "0.3" }), 1);
});

test("search finds words in any order, layers exactly", () => {
  const [node] = parseGraph(graphJson()).nodes;
  assert.ok(matchesQuery(node, "Capital cities", "cit cap"));
  assert.ok(matchesQuery(node, "x", "L0"));
  assert.ok(!matchesQuery(node, "x", "L05"));
  assert.ok(!matchesQuery(node, "x", "zebra"));
  assert.ok(matchesQuery(node, "x", ""));
});
