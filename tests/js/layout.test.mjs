import assert from "node:assert/strict";
import { test } from "node:test";

import { parseGraph } from "../../frontend_static/src/graph.js";
import { layoutGraph, nearestLookup } from "../../frontend_static/src/layout.js";
import { visibleNodes } from "../../frontend_static/src/pruned-graph.js";
import { graphJson } from "./builders.mjs";

const laid = (json = graphJson(), width = 600, height = 400) => {
  const graph = parseGraph(json);
  return { graph, ...layoutGraph(graph, visibleNodes(graph, null), width, height) };
};

test("columns begin at the first position with nodes and fill the width, by their fullest row beyond a least width", () => {
  const { columns } = laid();
  assert.deepEqual(
    columns.map((column) => column.position),
    [1, 2],
  );
  assert.deepEqual(
    columns.map((column) => column.count),
    [1, 2],
  );
  assert.equal(columns[0].width, 30 + 540 / 3);
  assert.equal(columns[1].x, 210);
  assert.equal(columns[1].width, 30 + (2 * 540) / 3);
});

test("many columns share the width, none of them wider for the floor than half of its part", () => {
  const nodes = Array.from({ length: 100 }, (_, i) => ({ ...graphJson().nodes[0], node_id: `n${i}`, ctx_idx: i < 40 ? i : 7 }));
  const { columns } = laid(graphJson({ nodes, links: [] }), 400, 100);
  assert.ok(columns.every(({ width }) => width >= 5 - 1e-9));
  assert.ok(columns[7].width > 100);
  const last = columns.at(-1);
  assert.ok(Math.abs(last.x + last.width - 400) < 1e-6);
});

test("rows go from the embedding below to the logits on top", () => {
  const { rows, graph, y } = laid();
  assert.deepEqual(
    rows.map((row) => row.label),
    ["Emb", "L0", "L1", "Logits"],
  );
  assert.equal(y[graph.index("E_3_1")], 350);
  assert.equal(y[graph.index("0_5_1")], 250);
  assert.equal(y[graph.index("3_42_2")], 50);
});

test("within a cell the most likely logit is on the right, as the layout rule says", () => {
  const { graph, x } = laid();
  const [padding, width, count] = [8, 390, 2];
  const spacing = Math.min(
    Math.max(20, Math.min((210 - padding) / 1, (width - padding) / 2)),
    (width - padding) / count,
  );
  assert.equal(x[graph.index("3_43_2")], 210 + width - padding - padding / 2);
  assert.equal(x[graph.index("3_42_2")], 210 + width - padding - (padding / 2 + spacing));
});

test("no two nodes of a cell coincide and all stay in their column", () => {
  const nodes = Array.from({ length: 40 }, (_, i) => ({
    ...graphJson().nodes[0],
    node_id: `n${i}`,
    ctx_idx: i % 3,
  }));
  const { graph, x, columns } = laid(graphJson({ nodes, links: [] }), 300, 100);
  const seen = new Set();
  for (const node of graph.nodes) {
    const column = columns.find(({ position }) => position === node.position);
    assert.ok(x[node.index] >= column.x - 1e-3 && x[node.index] <= column.x + column.width + 1e-3);
    seen.add(x[node.index].toFixed(2));
  }
  assert.equal(seen.size, 40);
});

test("nodes that aren't visible have no place, and an empty graph has no columns", () => {
  const graph = parseGraph(graphJson());
  const { x } = layoutGraph(graph, visibleNodes(graph, null, [], ["1_-1_2"]), 600, 400);
  assert.ok(Number.isNaN(x[graph.index("1_-1_2")]));
  assert.deepEqual(laid({ metadata: {}, nodes: [], links: [] }).columns, []);
});

test("positions beyond the prompt's tokens still get a column", () => {
  const nodes = [{ ...graphJson().nodes[0], ctx_idx: 7 }];
  assert.equal(laid(graphJson({ nodes, links: [] })).columns.at(-1).position, 7);
});

test("the nearest node agrees with a search through all of them", () => {
  let seed = 7;
  const random = () => {
    seed = (seed * 16807) % 2147483647;
    return seed / 2147483647;
  };
  const xs = Float32Array.from({ length: 500 }, () => random() * 800 - 50);
  const ys = Float32Array.from({ length: 500 }, () => random() * 400 - 50);
  xs[3] = Number.NaN;
  const find = nearestLookup(xs, ys);
  for (let i = 0; i < 300; i += 1) {
    const [x, y] = [random() * 800, random() * 400];
    let [best, distance] = [-1, 30];
    xs.forEach((value, j) => {
      const far = Math.hypot(value - x, ys[j] - y);
      if (far < distance) [best, distance] = [j, far];
    });
    assert.equal(find(x, y, 30), best);
  }
});

test("ten outputs get room for their slanted labels, and tokens are named below their nodes", () => {
  const nodes = Array.from({ length: 10 }, (_, i) => ({ ...graphJson().nodes[5], node_id: `3_${i}_2`, token_prob: 1 / (i + 2) }));
  const others = Array.from({ length: 30 }, (_, i) => ({ ...graphJson().nodes[0], node_id: `0_${i}_1`, ctx_idx: 0 }));
  const { graph, x, columns } = laid(graphJson({ nodes: [...nodes, ...others, { ...graphJson().nodes[3], ctx_idx: 2 }], links: [] }), 500, 300);
  const outputs = graph.nodes.filter((node) => node.kind === "logit").map((node) => x[node.index]).sort((a, b) => a - b);
  outputs.slice(1).forEach((value, i) => assert.ok(value - outputs[i] >= 15, `${value - outputs[i]}`));
  assert.equal(x[graph.index("E_3_1")], Math.fround(columns.at(-1).anchor));
  assert.ok(Math.abs(columns.at(-1).x + columns.at(-1).width - 500) < 1e-6);
});
