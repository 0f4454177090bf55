import assert from "node:assert/strict";
import { test } from "node:test";

import { parseGraph } from "../../frontend_static/src/graph.js";
import { strongestPaths } from "../../frontend_static/src/paths.js";
import { cantor } from "./builders.mjs";

/** A generator with a seed, so that random graphs repeat. */
function random(seed) {
  let state = seed;
  return () => {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0;
    return state / 2 ** 32;
  };
}

function randomGraph(seed, layers = 4, width = 4) {
  const next = random(seed);
  const nodes = [];
  for (let layer = 0; layer < layers; layer += 1) {
    for (let f = 0; f < width; f += 1)
      nodes.push({ node_id: `${layer}_${f}_0`, feature_type: "cross layer transcoder", layer: String(layer), ctx_idx: 0, feature: cantor(layer, f) });
    nodes.push({ node_id: `${layer}_-1_0`, feature_type: "mlp reconstruction error", layer: String(layer), ctx_idx: 0, feature: -1 });
  }
  for (let t = 0; t < 2; t += 1) nodes.push({ node_id: `E_${t}_${t}`, feature_type: "embedding", layer: "E", ctx_idx: t, feature: t });
  for (let k = 0; k < 2; k += 1)
    nodes.push({ node_id: `${layers}_${k}_0`, feature_type: "logit", layer: String(layers), ctx_idx: 0, feature: k, token_prob: 0.6 - 0.3 * k, clerp: "" });
  const rank = (node) => (node.feature_type === "embedding" ? -1 : Number(node.layer));
  const links = [];
  for (const target of nodes) {
    if (!["cross layer transcoder", "logit"].includes(target.feature_type)) continue;
    for (const source of nodes)
      if (rank(source) < rank(target) && next() < 0.6) links.push({ source: source.node_id, target: target.node_id, weight: next() * 2 - 1 });
  }
  return parseGraph({ metadata: { prompt_tokens: ["a", "b"], schema_version: 1 }, nodes, links });
}

/** Every path, by walking all of them. */
function allPaths(graph, through = -1) {
  const found = [];
  const walk = (node, nodes, strength) => {
    if (graph.nodes[node].kind === "logit") found.push({ nodes, strength: strength * graph.nodes[node].probability });
    for (const k of graph.outputs(node)) {
      const target = graph.links.target[k];
      walk(target, [...nodes, target], strength * Math.abs(graph.links.share[k]));
    }
  };
  for (const node of graph.nodes) if (node.kind === "token") walk(node.index, [node.index], 1);
  return found
    .filter(({ nodes }) => through < 0 || nodes.includes(through))
    .sort((a, b) => b.strength - a.strength);
}

const close = (a, b) => assert.ok(Math.abs(a - b) <= 1e-9 * Math.max(1, Math.abs(b)), `${a} and ${b}`);

for (const seed of [1, 2, 3, 4, 5, 6]) {
  test(`the strongest paths of random graph ${seed} are those of all paths`, () => {
    const graph = randomGraph(seed);
    const visible = new Uint8Array(graph.nodes.length).fill(1);
    const expected = allPaths(graph);
    const found = strongestPaths(graph, visible, { count: 8 });
    assert.equal(found.length, Math.min(8, expected.length));
    found.forEach((path, i) => close(path.strength, expected[i].strength));
    for (const path of found) {
      assert.equal(graph.nodes[path.nodes[0]].kind, "token");
      assert.equal(graph.nodes[path.nodes.at(-1)].kind, "logit");
      path.links.forEach((k, i) => {
        assert.equal(graph.links.source[k], path.nodes[i]);
        assert.equal(graph.links.target[k], path.nodes[i + 1]);
      });
      const signs = path.links.map((k) => Math.sign(graph.links.weight[k]));
      assert.equal(path.sign, signs.reduce((a, b) => a * b, 1));
    }
  });

  test(`the strongest paths through a node of random graph ${seed}`, () => {
    const graph = randomGraph(seed);
    const visible = new Uint8Array(graph.nodes.length).fill(1);
    for (const node of graph.nodes.filter(({ kind, layer }) => kind === "feature" && layer === 2)) {
      const expected = allPaths(graph, node.index);
      const found = strongestPaths(graph, visible, { count: 5, through: node.index });
      assert.equal(found.length, Math.min(5, expected.length));
      found.forEach((path, i) => {
        close(path.strength, expected[i].strength);
        assert.ok(path.nodes.includes(node.index));
      });
    }
  });
}

test("hidden nodes carry no path", () => {
  const graph = randomGraph(7);
  const visible = new Uint8Array(graph.nodes.length).fill(1);
  const [best] = strongestPaths(graph, visible);
  const hidden = best.nodes.find((i) => graph.nodes[i].kind === "feature");
  if (hidden === undefined) return;
  visible[hidden] = 0;
  for (const path of strongestPaths(graph, visible)) assert.ok(!path.nodes.includes(hidden));
});

test("a graph without links has no path", () => {
  const graph = parseGraph({ metadata: { prompt_tokens: ["a"] }, nodes: [], links: [] });
  assert.deepEqual(strongestPaths(graph, new Uint8Array(0)), []);
});
