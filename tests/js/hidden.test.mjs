import assert from "node:assert/strict";
import { test } from "node:test";

import { parseGraph } from "../../frontend_static/src/graph.js";
import { expandCommand, hasInputs, hiddenRequest, hiddenSentence } from "../../frontend_static/src/hidden.js";
import { graphJson } from "./builders.mjs";

const graph = parseGraph(graphJson({ metadata: { scan: "my set" } }));

test("a question names the prompt, the node and all features of the file", () => {
  const { shown, ...body } = hiddenRequest(graph, graph.node("1_7_2"), 5);
  assert.deepEqual(body, { prompt: "a", prompt_tokens: ["<bos>", " a", "\n"], scan: "my set", node: "1_7_2", top: 5 });
  assert.deepEqual([...shown].sort(), ["0_5_1", "1_7_2"]);
});

test("only features and outputs have inputs", () => {
  assert.deepEqual(["1_7_2", "3_42_2", "E_3_1", "nowhere"].map((id) => hasInputs(graph.node(id))), [true, true, false, false]);
});

test("the answer in words", () => {
  assert.equal(hiddenSentence({ share: 0.1234, count: 1200 }), "12.3 % of what feeds this node comes from 1,200 features that aren't in the file.");
  assert.equal(hiddenSentence({ share: 0.5, count: 1 }), "50 % of what feeds this node comes from 1 feature that isn't in the file.");
  assert.match(hiddenSentence({ share: 0, count: 0 }), /^Nothing is hidden/);
  assert.equal(expandCommand({ id: "1_7_2" }, 3), "circuit-tracer expand graph.safetensors --inputs-of 1_7_2 --top 3 -o graph.safetensors");
});
