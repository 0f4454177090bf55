import assert from "node:assert/strict";
import { test } from "node:test";

import { listEntries, watchList } from "../../frontend_static/src/graph-list.js";
import { createStore } from "../../frontend_static/src/state.js";

const texts = (state) => listEntries({ graphs: [], problems: [], tracing: null, ...state }).map(({ text }) => text);

test("the graph that is being traced is listed before its file is there, and once", () => {
  const tracing = { slug: "new", prompt: "a\nb" };
  assert.deepEqual(texts({ tracing }), ["new — a⏎b · being traced"]);
  assert.deepEqual(texts({ tracing, graphs: [{ slug: "old", title_prefix: "X" }] }), ["new — a⏎b · being traced", "X old"]);
  assert.deepEqual(texts({ tracing, graphs: [{ slug: "new" }] }), ["new · being traced"]);
});

test("files that can't be read stand at the end and can't be chosen", () => {
  const [entry] = listEntries({ graphs: [], problems: [{ slug: "x", error: "truncated" }], tracing: null });
  assert.deepEqual(entry, { value: "x", text: "x — truncated", disabled: true });
});

test("the list is read again, changes alone are told, and the first graph is announced", async () => {
  const store = createStore({ graphs: [], problems: [] });
  const answers = [{ graphs: [] }, { graphs: [{ slug: "a" }] }, { graphs: [{ slug: "a" }] }];
  const [waiting, heard] = [[], []];
  const api = {
    async listGraphs() {
      if (answers.length === 0) throw new Error("away");
      return answers.shift();
    },
  };
  store.subscribe(["graphs"], () => heard.push("changed"));
  const end = watchList(api, store, { onFirst: () => heard.push("first"), later: (run, pause) => waiting.push({ run, pause }), isSeen: () => true });
  const pauses = [];
  for (let i = 0; i < 4; i += 1) {
    const { run, pause } = waiting.shift();
    pauses.push(pause);
    await run();
  }
  assert.deepEqual(heard, ["changed", "first"]);
  assert.ok(pauses[0] < pauses[3]);
  end();
  await waiting.shift().run();
  assert.equal(waiting.length, 0);
});

test("a broken file that comes or goes later is told too", async () => {
  const store = createStore({ graphs: [{ slug: "a" }], problems: [] });
  const graphs = [{ slug: "a" }];
  const broken = [{ slug: "x", error: "truncated" }];
  const [answers, heard, waiting] = [[{ graphs, errors: broken }, { graphs, errors: broken }, { graphs }], [], []];
  store.subscribe(["problems"], ({ problems }) => heard.push(problems));
  watchList({ listGraphs: async () => answers.shift() }, store, { onFirst() {}, later: (run) => waiting.push(run), isSeen: () => true });
  for (let i = 0; i < 3; i += 1) await waiting.shift()();
  assert.deepEqual(heard, [broken, []]);
});
