import assert from "node:assert/strict";
import { test } from "node:test";

import {
  SETTINGS,
  bodyOf,
  defaultTargets,
  differenceOf,
  emptyForm,
  lengthInWords,
  runAsTrace,
  runFeed,
  targetOf,
  toggled,
  typedTarget,
} from "../../frontend_static/src/new-graph.js";

const AUSTIN = { token: " Austin", id: 7, target: " Austin" };
const ODD = { token: "\ufffd", id: 9, target: "id:9" };

test("what is left empty isn't sent", () => {
  assert.deepEqual(bodyOf({ ...emptyForm(), prompt: "a" }), { prompt: "a" });
  const settings = { max_n_logits: "3", batch_size: " ", node_threshold: "0.5", edge_threshold: "much" };
  const form = { ...emptyForm(), prompt: "a", system: "b", targets: [targetOf(AUSTIN)], slug: " mine ", settings };
  assert.deepEqual(bodyOf(form), { prompt: "a", targets: [" Austin"], slug: "mine", max_n_logits: 3, node_threshold: 0.5 });
  assert.deepEqual(bodyOf({ ...form, chat: true, targets: [], slug: "", settings: {} }), { prompt: "a", chat: true, system: "b" });
  assert.deepEqual(bodyOf({ ...emptyForm(), prompt: "a", completion: " b" }), { prompt: "a", completion: " b" });
  assert.equal(new Set(SETTINGS.map(({ name }) => name)).size, 6);
});

test("targets are what the server reads back, and shown as people read them", () => {
  assert.equal(targetOf(ODD).text, "id:9");
  assert.equal(differenceOf(AUSTIN, ODD).text, " Austin - id:9");
  assert.match(differenceOf(AUSTIN, ODD).label, /Austin − /);
  assert.equal(typedTarget("Texas").text, "Texas");
});

test("a second click takes a target away", () => {
  const once = toggled([], targetOf(AUSTIN));
  assert.equal(once.length, 1);
  assert.deepEqual(toggled(toggled(once, targetOf(ODD)), targetOf(AUSTIN)), [targetOf(ODD)]);
});

test("lengths and defaults in words", () => {
  assert.equal(lengthInWords([1], null), "1 token");
  assert.equal(lengthInWords([1, 2], 8192), "2 tokens of 8,192 at most");
  assert.match(defaultTargets({ max_n_logits: 10, desired_logit_prob: 0.95 }), /at most 10.*95 %/);
});

test("a run that waits is told as a trace", () => {
  const run = { id: "r", state: "queued", ahead: 2, phase: "", done: 0, total: 5 };
  assert.deepEqual(runAsTrace(run, 1), { state: "running", run: "r", phase: "waiting, 2 before it", done: 0, total: null, seconds: 1, version: 0 });
  assert.equal(runAsTrace({ ...run, ahead: 0, phase: "loading the model" }, 1).phase, "loading the model");
});

test("a run is followed from the queue over its partial graphs to its end", async () => {
  const runs = [
    { id: "r", state: "queued", ahead: 1, done: 0, total: null },
    { id: "r", state: "running", ahead: 0, phase: "starting", done: 0, total: null },
    { id: "r", state: "running", ahead: 0, phase: "rows", done: 1, total: 4 },
    { id: "r", state: "running", ahead: 0, phase: "writing", done: 0, total: null },
    { id: "r", state: "done", result: { slug: "x-2", note: "kept" } },
    { id: "r", state: "failed", error: { error: "no", hint: "yes" } },
    { id: "r", state: "cancelled" },
  ];
  const lives = [{ state: "done", run: "other" }, { state: "running", run: "r", version: 3 }, { state: "done", run: "r", version: 3 }];
  const api = { runs: { read: async () => runs.shift() }, liveTrace: async () => lives.shift(), liveGraph: () => "graph" };
  const feed = runFeed(api, "r", () => 2000);
  const heard = [];
  while (runs.length > 0) heard.push(await feed.liveTrace());
  assert.deepEqual(heard.map(({ state, version }) => [state, version]), [
    ["running", 0], ["running", 0], ["running", 3], ["running", 3], ["done", undefined], ["failed", undefined], ["cancelled", undefined],
  ]);
  assert.equal(heard[0].phase, "waiting, 1 before it");
  assert.deepEqual([heard[4].slug, heard[4].note], ["x-2", "kept"]);
  assert.deepEqual([heard[5].error, heard[5].hint], ["no", "yes"]);
  assert.equal(feed.liveGraph(), "graph");
});
