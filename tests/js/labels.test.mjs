import assert from "node:assert/strict";
import { test } from "node:test";

import { compareLabels, provenance, readLabelFile } from "../../frontend_static/src/label-exchange.js";

test("an exported file, plain texts and pairs are all understood", () => {
  const file = readLabelFile(JSON.stringify({ set: "s", labels: { 1: { text: "a", author: "x" }, 2: "b", x: "c", 3: { text: "" } } }));
  assert.deepEqual(file, { labels: { 1: { text: "a", author: "x" }, 2: { text: "b" } }, set: "s", unread: 2 });
  assert.deepEqual(readLabelFile('[["5", "e"], [6]]').labels, { 5: { text: "e" } });
});

test("a file without labels is refused with a message", () => {
  for (const text of ["{", "null", "3", "{}", '{"labels": {}}', '{"labels": []}', '{"labels": {"a": "b"}}'])
    assert.throws(() => readLabelFile(text), /isn't JSON|no labels/, text);
});

test("what taking them in would do", () => {
  const found = compareLabels({ 1: { text: "a" }, 2: { text: "b" }, 3: { text: "c" } }, { 2: { text: "b" }, 3: { text: "d" } });
  assert.deepEqual(
    [found.added, found.same, found.conflicts].map((list) => list.map(({ code }) => code)),
    [["1"], ["2"], ["3"]],
  );
  assert.equal(found.conflicts[0].ours.text, "d");
});

test("who and when", () => {
  assert.equal(provenance({ author: "ada", time_ms: Date.UTC(2026, 0, 31) }), "ada, 2026-01-31");
  assert.equal(provenance({}), "unknown");
  assert.equal(provenance({ author: "ada", time_ms: 1e300 }), "ada");
  assert.equal(provenance({ time_ms: 8.64e15 }), "+275760-09"); // The last moment that a date can be.
});
