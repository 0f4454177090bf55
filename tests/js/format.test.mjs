import assert from "node:assert/strict";
import { test } from "node:test";

import {
  joinTokens,
  layerLabel,
  mergeSpans,
  nodeLabel,
  number,
  percent,
  percentile,
  shorten,
  showToken,
  signed,
  signedPercent,
  tokenLabel,
} from "../../frontend_static/src/format.js";

test("invisible characters of tokens are shown", () => {
  assert.equal(showToken("a\n\t\r"), "a⏎→↵");
  assert.equal(showToken("  "), "␣␣");
  assert.equal(showToken(""), "");
  assert.equal(tokenLabel(" Dallas"), "Dallas");
  assert.equal(tokenLabel("\n"), "⏎");
});

test("text is cut between characters, never inside one", () => {
  assert.equal(shorten("abcdef", 4), "abc…");
  assert.equal(shorten("🧠🧠🧠🧠🧠", 3), "🧠🧠…");
  assert.equal(shorten("🧠🧠", 3), "🧠🧠");
  assert.ok(shorten("x".repeat(1_000_000), 40).length <= 40);
});

test("numbers have signs and sensible digits", () => {
  assert.equal(signed(-0.12345), "−0.123");
  assert.equal(signed(0), "+0.000");
  assert.equal(signedPercent(0.0513), "+5.1 %");
  assert.equal(signedPercent(-0.44), "−44 %");
  assert.equal(percent(0.00213), "0.21 %");
  assert.equal(percent(0.414), "41.4 %");
  assert.equal(percent(0), "0 %");
  assert.equal(percent(1e-9), "< 0.001 %");
  assert.equal(number(null), "–");
  assert.equal(number(1.23456), "1.23");
  assert.equal(number(12345.6), "12,346");
});

test("a node is called by the user's label, else the file's, else its feature file's, else its number", () => {
  const node = { kind: "feature", code: 9, feature: 4, clerp: "clerp", layer: 2 };
  assert.equal(nodeLabel(node, { 9: "mine" }, "auto"), "mine");
  assert.equal(nodeLabel(node, {}, "auto"), "clerp");
  assert.equal(nodeLabel({ ...node, clerp: "" }, {}, "auto"), "auto");
  assert.equal(nodeLabel({ ...node, clerp: "" }), "Feature 4");
  assert.equal(nodeLabel({ kind: "error", clerp: "", token: " of" }), "Error · of");
  assert.equal(layerLabel({ kind: "token", layer: -1 }), "Emb");
});

test("percentiles follow the first value that reaches the activation", () => {
  assert.equal(percentile([1, 2, 3], 2), 2);
  assert.equal(percentile([1, 2, 3], 2.5), 3);
  assert.equal(percentile([1, 2, 3], 9), 100);
});

test("escaped bytes are joined until they form characters", () => {
  const joined = joinTokens(["a", "\\xe6\\x9d", "\\xb1", "b"], [0, 1, 3, 0]);
  assert.deepEqual(
    joined.map(({ text }) => text),
    ["a", "東", "b"],
  );
  assert.equal(joined[1].activation, 3);
  assert.deepEqual([joined[1].from, joined[1].to], [1, 3]);
});

test("bytes that never form a character stay as they are", () => {
  const joined = joinTokens(["\\xff", "a", "b", "c", "d", "e"], [1, 0, 0, 0, 0, 0]);
  assert.equal(joined[0].text, "\\xff");
  assert.equal(joined.length, 6);
});

test("missing and odd activations count as zero", () => {
  assert.deepEqual(
    joinTokens(["a", "b"], [null]).map(({ activation }) => activation),
    [0, 0],
  );
});

test("neighbours of equal activation become one span, but never with the centre", () => {
  const joined = joinTokens(["a", "b", "c", "d", "e"], [0, 0, 0, 0, 2]);
  const spans = mergeSpans(joined, 2);
  assert.deepEqual(
    spans.map(({ text }) => text),
    ["ab", "c", "d", "e"],
  );
  assert.deepEqual(
    spans.map(({ isCentre }) => isCentre),
    [false, true, false, false],
  );
});
