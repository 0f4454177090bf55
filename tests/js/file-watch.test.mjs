import assert from "node:assert/strict";
import { test } from "node:test";

import { watchFile } from "../../frontend_static/src/file-watch.js";
import { createStore, initialState } from "../../frontend_static/src/state.js";

const file = (etag, qParams, metadata = {}) => ({ etag, qParams, metadata });

/** A page on a graph whose file takes the given forms, one per question; each is followed by `after(store, number)`. */
async function heard(files, { after = () => {}, isSeen = () => true } = {}) {
  const store = createStore({ ...initialState(), slug: "demo", etag: "0" });
  const asked = [];
  const found = [];
  await new Promise((resolve) => {
    const watch = watchFile(
      {
        async readView(slug, etag) {
          asked.push(etag);
          const next = files[asked.length - 1] ?? files.at(-1);
          if (next instanceof Error) throw next;
          return next.etag === etag ? null : next;
        },
      },
      store,
      {
        onMetadata(view) {
          found.push(view);
          store.set({ etag: view.etag });
        },
        isSeen,
        later(next) {
          after(store, asked.length);
          if (asked.length < files.length && isSeen()) return setImmediate(next);
          watch.stop();
          return resolve();
        },
      },
    );
  });
  return { asked, found, store };
}

test("new metadata is taken, and only once", async () => {
  const report = { validation: { version: 1 } };
  const same = { pinnedIds: ["a"] };
  const { asked, found } = await heard([file("0", same), file("0", same), file("1", same, report), file("1", same, report)]);
  assert.deepEqual(found, [{ metadata: report, etag: "1" }]);
  assert.deepEqual(asked, [null, "0", "0", "1"]);
});

test("somebody else's annotations are left to the next save", async () => {
  const { found, store } = await heard([file("0", { pinnedIds: [] }), file("1", { pinnedIds: ["a"] }), file("1", { pinnedIds: ["a"] })]);
  assert.deepEqual(found, []);
  assert.equal(store.get("etag"), "0");
});

test("what was there before the first look can't be told from an edit", async () => {
  assert.deepEqual((await heard([file("1", {}, { validation: {} })])).found, []);
});

test("after the page's own save its annotations are the known ones", async () => {
  const [mine, report] = [{ pinnedIds: ["mine"] }, { validation: {} }];
  const after = (store, number) => number === 1 && store.set({ etag: "1" });
  const { asked, found } = await heard([file("0", {}), file("1", mine), file("2", mine, report)], { after });
  assert.deepEqual(asked, [null, null, "1"]);
  assert.deepEqual(found, [{ metadata: report, etag: "2" }]);
});

test("silence and a hidden page are no change", async () => {
  assert.deepEqual((await heard([file("0", {}), new Error("away"), file("0", {})])).found, []);
  assert.deepEqual((await heard([file("0", {})], { isSeen: () => false })).asked, []);
});

test("metadata that arrive while a save is under way are read again after it", async () => {
  const store = createStore({ ...initialState(), slug: "demo", etag: "0" });
  const [asked, found] = [[], []];
  let now = file("0", {});
  let during = () => {};
  const read = async (slug, etag) => {
    asked.push(etag);
    during();
    return now.etag === etag ? null : now;
  };
  const watch = watchFile({ readView: read }, store, { onMetadata: (view) => found.push(view), isSeen: () => true, later() {} });
  await new Promise(setImmediate);
  now = file("1", {}, { validation: {} });
  during = () => store.set({ saving: { kind: "saving", message: "" } });
  await watch.look();
  assert.deepEqual(found, []);
  during = () => {};
  store.set({ saving: { kind: "conflict", message: "" } });
  await watch.look();
  assert.deepEqual(found, [{ metadata: { validation: {} }, etag: "1" }]);
  assert.deepEqual(asked, [null, "0", "0"]);
});
