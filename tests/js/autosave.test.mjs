import assert from "node:assert/strict";
import { test } from "node:test";

import { createAutosave } from "../../frontend_static/src/autosave.js";
import { parseGraph } from "../../frontend_static/src/graph.js";
import { createLeaving } from "../../frontend_static/src/leaving.js";
import { createStore, initialState } from "../../frontend_static/src/state.js";
import { graphJson } from "./builders.mjs";

/** A store with a graph, a clock that runs on demand, and a server that answers from a list. */
function scene(answers = []) {
  const store = createStore({ ...initialState(), slug: "demo", graph: parseGraph(graphJson()), etag: '"0"' });
  const sent = [];
  let timer = null;
  const save = async (slug, etag, params) => {
    sent.push({ slug, etag, pinned: params.pinnedIds });
    const answer = answers.shift() ?? `"${sent.length}"`;
    if (answer instanceof Object) throw answer;
    return answer;
  };
  const autosave = createAutosave(store, save, {
    later: (f) => {
      timer = f;
      return f;
    },
    forget: () => {
      timer = null;
    },
  });
  const tick = async () => {
    const f = timer;
    timer = null;
    await f?.();
  };
  return { store, sent, autosave, tick, waiting: () => timer !== null };
}

test("edits are saved after a pause with the tag that was read, then with the new one", async () => {
  const { store, sent, tick } = scene();
  store.edit({ pinned: ["a"] });
  store.edit({ pinned: ["a", "b"] });
  assert.equal(store.get("saving").kind, "pending");
  await tick();
  store.edit({ pinned: [] });
  await tick();
  assert.deepEqual(
    sent.map(({ etag, pinned }) => [etag, pinned]),
    [
      ['"0"', ["a", "b"]],
      ['"1"', []],
    ],
  );
  assert.equal(store.get("saving").kind, "saved");
});

test("nothing is saved without an edit", async () => {
  const { store, sent, autosave } = scene();
  store.set({ selected: "a", threshold: 0.5 });
  await autosave.flush();
  assert.equal(sent.length, 0);
});

test("a conflict stops saving until somebody decides", async () => {
  const { store, sent, autosave, tick } = scene([{ status: 412, message: "stale" }]);
  store.edit({ pinned: ["a"] });
  await tick();
  assert.equal(store.get("saving").kind, "conflict");
  store.edit({ pinned: ["a", "b"] });
  await tick();
  assert.equal(sent.length, 1);
  await autosave.overwrite('"theirs"');
  assert.deepEqual(sent[1], { slug: "demo", etag: '"theirs"', pinned: ["a", "b"] });
  assert.equal(store.get("saving").kind, "saved");
});

test("without a connection it is tried again and nothing is lost", async () => {
  const { store, sent, tick, waiting } = scene([{ status: 0, message: "no reply" }]);
  store.edit({ pinned: ["a"] });
  await tick();
  assert.equal(store.get("saving").kind, "failed");
  assert.ok(waiting());
  await tick();
  assert.equal(sent.length, 2);
  assert.equal(store.get("saving").kind, "saved");
});

test("another graph starts clean", async () => {
  const { store, sent, autosave, tick } = scene();
  store.edit({ pinned: ["a"] });
  await tick();
  store.set({ slug: "other", graph: parseGraph(graphJson()), etag: '"x"', edits: 0 });
  assert.equal(autosave.dirty(), false);
  await autosave.flush();
  assert.equal(sent.length, 1);
});

test("settling waits for the save under way and saves what came after it", async () => {
  const { store, sent, autosave } = scene();
  store.edit({ pinned: ["a"] });
  const first = autosave.flush();
  store.edit({ pinned: ["a", "b"] });
  assert.equal(await autosave.settle(), true);
  await first;
  assert.deepEqual(sent.map(({ pinned }) => pinned), [["a"], ["a", "b"]]);
  assert.equal(await autosave.settle(), true);
  assert.equal(sent.length, 2);
});

test("after a conflict nothing settles, and only then somebody is asked before another graph is shown", async () => {
  const { store, autosave, tick } = scene([{ status: 412, message: "stale" }]);
  const asked = [];
  const mayLeave = createLeaving(store, autosave, (question) => asked.push(question) > 1);
  assert.equal(await mayLeave("other"), true);
  store.edit({ pinned: ["a"] });
  await tick();
  assert.equal(await autosave.settle(), false);
  assert.equal(await mayLeave("demo"), true);
  assert.deepEqual(asked, []);
  assert.equal(await mayLeave("other"), false);
  assert.equal(asked[0], "Edits of demo aren't saved. This graph was changed in another window. Show other and lose them?");
  assert.equal(await mayLeave("other"), true);
});
