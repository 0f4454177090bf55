import assert from "node:assert/strict";
import { test } from "node:test";

import { amount, followTrace, mergedAnnotations, portion } from "../../frontend_static/src/live.js";

const running = (more = {}) => ({ state: "running", slug: "a", phase: "rows", done: 1, total: 4, seconds: 2.4, version: 0, ...more });

/** Follows a list of answers; an Error in it is thrown. Resolves with what was heard when the trace is over. */
function followed(answers, graphs = []) {
  const heard = [];
  const api = {
    liveTrace: async () => {
      const next = answers.shift();
      if (next instanceof Error) throw next;
      return next;
    },
    liveGraph: async () => graphs.shift() ?? null,
  };
  return new Promise((resolve) => {
    followTrace(api, {
      onStatus: (status) => heard.push(status.state),
      onGraph: (json) => heard.push(json),
      onEnd: (status) => resolve([...heard, { end: status.state }]),
      later: (next) => setImmediate(next),
    });
  });
}

test("each version of the graph is read once", async () => {
  const answers = [running(), running({ version: 1 }), running({ version: 1 }), running({ version: 3 }), { state: "done" }];
  assert.deepEqual(await followed(answers, ["first", "second"]), [
    "running", "running", "first", "running", "running", "second", "done", { end: "done" },
  ]);
});

test("a graph that has just gone is nothing to show", async () => {
  assert.deepEqual(await followed([running({ version: 1 }), { state: "done" }]), ["running", "done", { end: "done" }]);
});

test("some silence is forgiven, a long one is the end", async () => {
  const silence = () => new Error("no reply");
  const patient = await followed([silence(), silence(), silence(), running(), silence(), { state: "failed" }]);
  assert.deepEqual(patient.at(-1), { end: "failed" });
  const lost = await followed([running(), silence(), silence(), silence(), silence()]);
  assert.deepEqual(lost, ["running", { end: "lost" }]);
});

test("edits made meanwhile are put over those of the file", () => {
  const ours = { pinned: ["b", "c"], supernodes: [["mine", "b", "c"]], labels: { 1: "new" }, notes: { graph: "", nodes: { a: "x" } } };
  const theirs = { pinned: ["a", "b"], supernodes: [["old", "b", "d"], ["other", "a", "e"]], labels: { 1: "old", 2: "kept" }, notes: { graph: "g", nodes: { a: "y", b: "z" } } };
  const merged = mergedAnnotations(ours, theirs);
  assert.deepEqual(merged.pinned, ["a", "b", "c"]);
  assert.deepEqual(merged.supernodes, [["other", "a", "e"], ["mine", "b", "c"]]);
  assert.deepEqual(merged.labels, { 1: "new", 2: "kept" });
  assert.deepEqual(merged.notes, { graph: "g", nodes: { a: "x", b: "z" } });
});

test("how far it is", () => {
  assert.equal(portion({ done: 1, total: 4 }), 0.25);
  assert.equal(portion({ done: 9, total: 4 }), 1);
  assert.equal(portion({ done: 9, total: null }), null);
  assert.equal(amount({ done: 1024, total: 7500, seconds: 2.6 }), "1,024 of 7,500 · 3 s");
  assert.equal(amount({ done: 0, total: null, seconds: 0 }), "0 s");
});
