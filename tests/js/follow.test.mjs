import assert from "node:assert/strict";
import { test } from "node:test";

import { createAutosave } from "../../frontend_static/src/autosave.js";
import { createFollower } from "../../frontend_static/src/follow.js";
import { parseGraph } from "../../frontend_static/src/graph.js";
import { createStore, initialState } from "../../frontend_static/src/state.js";
import { graphJson } from "./builders.mjs";

/** As much of a document as the strip of progress needs; what a button's text does is found by it. */
const presses = new Map();
globalThis.document = {
  createElement() {
    let press = null;
    return {
      dataset: {},
      setAttribute() {},
      removeAttribute() {},
      addEventListener: (_, listener) => (press = listener),
      append: (text) => press && presses.set(text, press),
    };
  },
};

const growing = (version) => ({ state: "running", run: "r", slug: "new", phase: "rows", done: version, total: 4, seconds: 1, version });
const DONE = { state: "done", result: { slug: "new", note: "two pins are gone" } };
const settled = () => new Promise((resolve) => setTimeout(resolve));

/** A page on the graph `old` that has started the trace of `new`; `answers` of its saves, and what the page has done. */
function scene({ answers = [], mayLeave = async () => true } = {}) {
  const store = createStore({ ...initialState(), slug: "old", graph: parseGraph(graphJson()), etag: "0" });
  const [did, waiting] = [[], []];
  let now = growing(1);
  const api = {
    runs: { read: async () => (now.state === "done" ? DONE : { state: "running" }) },
    liveTrace: async () => now,
    liveGraph: async () => graphJson({ metadata: { slug: "new" } }),
  };
  const autosave = createAutosave(store, async () => answers.shift()(), { later() {}, forget() {} });
  const show = (slug, graph, etag) => {
    did.push(`show ${slug}`);
    store.set({ slug, graph, etag, edits: 0 });
  };
  const page = {
    show,
    renew: () => did.push("renew"),
    open: async (slug) => did.push(`open ${slug}`),
    refreshList: async () => {},
    readProposedLabels() {},
    hideMessage() {},
    mayLeave,
  };
  const follower = createFollower(store, api, autosave, page, { later: (run) => waiting.push(run) });
  return {
    store,
    autosave,
    did,
    follow: async () => {
      follower.followRun({ id: "r" }, { slug: "new", prompt: "a" }, () => {});
      await settled();
    },
    async turn(next) {
      now = next;
      waiting.shift()();
      await settled();
    },
  };
}

const stale = () => Promise.reject(Object.assign(new Error("stale"), { status: 412 }));

test("a new trace takes over the page as soon as there is something of it", async () => {
  const { store, did, follow, turn } = scene({ answers: [async () => "1"] });
  store.edit({ pinned: ["0_5_1"] });
  await follow();
  await turn(growing(2));
  assert.deepEqual(did, ["show new", "renew"]);
});

test("edits that can't be saved keep the page on their graph, until the end and after it", async () => {
  const { store, autosave, did, follow, turn } = scene({ answers: [stale] });
  store.edit({ pinned: ["0_5_1"] });
  await autosave.flush();
  await follow();
  await turn(growing(2));
  await turn({ state: "done" });
  assert.deepEqual(did, []);
  assert.deepEqual([store.get("slug"), store.get("pinned"), autosave.dirty()], ["old", ["0_5_1"], true]);
  assert.match(store.get("notice"), /^new is traced; choose it at the top.* unsaved edits\. Two pins are gone$/);
});

test("a save under way is waited for", async () => {
  let saved;
  const { store, autosave, did, follow } = scene({ answers: [() => new Promise((resolve) => (saved = resolve))] });
  store.edit({ pinned: ["0_5_1"] });
  autosave.flush();
  await follow();
  assert.deepEqual(did, []);
  saved("1");
  await settled();
  assert.deepEqual(did, ["show new"]);
});

test("somebody can show it all the same, and is asked first", async () => {
  const [answers, asked] = [[false, true], []];
  const mayLeave = async (slug) => asked.push(slug) && answers.shift();
  const { store, autosave, did, follow } = scene({ answers: [stale], mayLeave });
  store.edit({ pinned: ["0_5_1"] });
  await autosave.flush();
  await follow();
  await presses.get("Show its graph")();
  assert.deepEqual(did, []);
  await presses.get("Show its graph")();
  assert.deepEqual([did, asked], [["show new"], ["new", "new"]]);
});
