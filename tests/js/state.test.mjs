import assert from "node:assert/strict";
import { test } from "node:test";

import { createStore, initialState } from "../../frontend_static/src/state.js";

test("subscribers run once per patch, for their keys only, until disposed", () => {
  const store = createStore({ a: 1, b: 2 });
  let calls = 0;
  const dispose = store.subscribe(["a", "b"], () => {
    calls += 1;
  });
  store.set({ a: 2, b: 3 });
  assert.equal(calls, 1);
  store.set({ a: 2 });
  store.set({ c: 1 });
  assert.equal(calls, 1);
  dispose();
  store.set({ a: 5 });
  assert.equal(calls, 1);
});

test("a subscriber may end another while both are called", () => {
  const store = createStore({ a: 1 });
  let second = 0;
  let dispose = () => {};
  store.subscribe(["a"], () => dispose());
  dispose = store.subscribe(["a"], () => {
    second += 1;
  });
  store.set({ a: 2 });
  assert.equal(second, 0);
});

test("edits are undone and redone one by one; an edit after an undo ends the redo", () => {
  const store = createStore(initialState());
  store.edit({ pinned: ["a"] });
  store.edit({ pinned: ["a", "b"], labels: { 1: "x" } });
  assert.ok(store.undo());
  assert.deepEqual([store.get("pinned"), store.get("labels")], [["a"], {}]);
  assert.ok(store.undo());
  assert.deepEqual(store.get("pinned"), []);
  assert.equal(store.undo(), false);
  assert.ok(store.redo());
  assert.deepEqual(store.get("pinned"), ["a"]);
  store.edit({ pinned: ["c"] });
  assert.equal(store.redo(), false);
  assert.equal(store.get("canRedo"), false);
});

test("every undo counts as an edit, so that it is saved", () => {
  const store = createStore(initialState());
  store.edit({ pinned: ["a"] });
  const edits = store.get("edits");
  store.undo();
  assert.ok(store.get("edits") > edits);
});

test("the history is forgotten with the graph and never grows without end", () => {
  const store = createStore(initialState());
  for (let i = 0; i < 500; i += 1) store.edit({ pinned: [String(i)] });
  let steps = 0;
  while (store.undo()) steps += 1;
  assert.equal(steps, 200);
  store.forget();
  assert.equal(store.redo(), false);
});

test("edits of one sitting are undone as one", () => {
  const store = createStore({ ...initialState() });
  store.edit({ labels: { 1: "a" } });
  for (const text of ["w", "wo", "word"]) store.edit({ notes: text }, "note x");
  store.edit({ notes: "another" }, "note y");
  assert.equal(store.get("edits"), 5);
  store.undo();
  assert.equal(store.get("notes"), "word");
  store.edit({ notes: "words" }, "note x");
  store.undo();
  assert.equal(store.get("notes"), "word");
  store.undo();
  assert.deepEqual(store.get("notes"), { graph: "", nodes: {} });
  assert.deepEqual(store.get("labels"), { 1: "a" });
});
