import assert from "node:assert/strict";
import { test } from "node:test";

import { parseGraph } from "../../frontend_static/src/graph.js";
import { contributions, whyNot } from "../../frontend_static/src/why-not.js";
import { graphJson } from "./builders.mjs";

test("what a source adds is in one list for each of its effects, and adds up", () => {
  for (const [answer, other] of [[3, 1], [3, -1], [-3, 1], [-3, -1], [0, 2], [2, 0], [0, 0]]) {
    const parts = Object.values(contributions(answer, other));
    assert.equal(parts.reduce((sum, value) => sum + value, 0), answer - other);
  }
  assert.deepEqual(contributions(3, 1), { both: 2, answerOnly: 0, otherDown: 0, otherOnly: 0, answerDown: 0 });
  assert.deepEqual(contributions(3, -1), { both: 0, answerOnly: 3, otherDown: 1, otherOnly: 0, answerDown: 0 });
});

test("lists and the rest add up to the difference of the logits", () => {
  const graph = parseGraph(graphJson());
  const [a, b] = [graph.node("3_43_2"), graph.node("3_42_2")];
  const { difference, lists, rest } = whyNot(graph, { a, b });
  // 3_43 reads 0_5_1 with 0.5; 3_42 reads 1_7_2 with 2 and an error with −2.
  assert.deepEqual(
    Object.fromEntries(Object.entries(lists).map(([name, { sum, count }]) => [name, [sum, count]])),
    { both: [0, 0], answerOnly: [0.5, 1], otherDown: [2, 1], otherOnly: [-2, 1], answerDown: [0, 0] },
  );
  assert.equal(lists.otherDown.strongest[0].index, graph.index("1_-1_2"));
  assert.equal(difference, Math.log(0.5) - Math.log(0.25));
  assert.equal(rest, difference - 0.5);
});

test("without a probability there is no difference to add up to", () => {
  const graph = parseGraph(graphJson());
  const [a, b] = [graph.node("3_43_2"), { ...graph.node("3_42_2"), probability: 0 }];
  assert.deepEqual([whyNot(graph, { a, b }).difference, whyNot(graph, { a, b }).rest], [null, null]);
});
