import assert from "node:assert/strict";
import { test } from "node:test";

import { createStore } from "../../frontend_static/src/state.js";
import { followWindows } from "../../frontend_static/src/windows.js";

/** Channels that deliver at once to all others. */
function exchange() {
  const open = new Set();
  return () => {
    const channel = {
      postMessage: (data) => [...open].filter((other) => other !== channel).forEach((other) => other.onmessage?.({ data: structuredClone(data) })),
      close: () => open.delete(channel),
    };
    open.add(channel);
    return channel;
  };
}

function page(channels, slug = "a") {
  const store = createStore({ slug, graph: {}, following: false, selected: null, hovered: null, pinned: [] });
  return { store, end: followWindows(store, store.set, channels) };
}

test("windows that follow show the same selection, and nothing runs in circles", () => {
  const channels = exchange();
  const [one, two, other] = [page(channels), page(channels), page(channels, "b")];
  one.store.set({ selected: "x" });
  assert.equal(two.store.get("selected"), null);
  for (const { store } of [one, two, other]) store.set({ following: true });
  one.store.set({ selected: "y" });
  assert.equal(two.store.get("selected"), "y");
  two.store.set({ hovered: "z" });
  assert.equal(one.store.get("hovered"), "z");
  assert.equal(other.store.get("selected"), null);
  two.store.set({ following: false, selected: "w" });
  assert.equal(one.store.get("selected"), "y");
});

test("only what is seen is taken, never an edit", () => {
  const channels = exchange();
  const one = page(channels);
  one.store.set({ following: true });
  channels().postMessage({ slug: "a", state: { pinned: ["p"], slug: "b", selected: "q" } });
  assert.deepEqual([one.store.get("pinned"), one.store.get("slug"), one.store.get("selected")], [[], "a", "q"]);
  channels().postMessage(null);
  one.end();
});

test("a view that can't be taken doesn't silence the window", () => {
  const channels = exchange();
  const [one, other] = [page(channels), createStore({ slug: "a", graph: {}, following: true, selected: null })];
  const refuse = () => {
    throw new Error("no such node");
  };
  followWindows(other, refuse, channels);
  one.store.set({ following: true });
  assert.throws(() => one.store.set({ selected: "x" }), /no such node/);
  other.set({ selected: "y" });
  assert.equal(one.store.get("selected"), "y");
});
