import assert from "node:assert/strict";
import { test } from "node:test";

import { createAttributes, plainValues } from "../../frontend_static/src/attributes.js";
import { parseGraph } from "../../frontend_static/src/graph.js";
import { attributeName, attributes } from "../../frontend_static/src/scatter-data.js";
import { createStore } from "../../frontend_static/src/state.js";
import { graphJson } from "./builders.mjs";

test("plain values in the file's order; nothing for what isn't plain", () => {
  assert.deepEqual(plainValues({ b: 1.23456789012, a: "x", c: null, d: "", e: [1], f: false }), [
    ["b", "1.23456789"],
    ["a", "x"],
    ["f", "false"],
  ]);
  assert.deepEqual(plainValues(undefined), []);
});

test("they are read once, when somebody asks, and again for another graph", async () => {
  const [first, second] = [parseGraph(graphJson()), parseGraph(graphJson())].map((graph) => ({ ...graph, attributes: null }));
  const store = createStore({ graph: first, slug: "a", attributes: null });
  const asked = [];
  const reader = createAttributes(store, async (slug) => {
    asked.push(slug);
    return graphJson().nodes;
  });
  assert.deepEqual(asked, []);
  reader.ask();
  reader.ask();
  await new Promise((resolve) => setTimeout(resolve));
  assert.equal(store.get("attributes").length, 6);
  store.set({ graph: { ...first, metadata: {} } });
  assert.ok(store.get("attributes"));
  store.set({ graph: second, slug: "b" });
  assert.equal(store.get("attributes"), null);
  await new Promise((resolve) => setTimeout(resolve));
  assert.deepEqual(asked, ["a", "b"]);
  assert.equal(store.get("attributes").length, 6);
});

test("the scatter plot has every number of the file, its own names first", () => {
  const graph = parseGraph(graphJson());
  const raw = graphJson().nodes.map((node, i) => ({ ...node, run_idx: i, my_score: i * i, same: 1 }));
  const names = attributes(graph, raw).map(({ name }) => name);
  for (const name of ["position", "influence", "run_idx", "my_score", "raw_feature"]) assert.ok(names.includes(name), name);
  for (const name of ["ctx_idx", "token_prob", "same"]) assert.ok(!names.includes(name), name);
  assert.equal(attributeName("ctx_idx"), "position");
  assert.equal(attributeName("my_score"), "my_score");
});
