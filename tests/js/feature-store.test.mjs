import assert from "node:assert/strict";
import { test } from "node:test";

import { createFeatureStore } from "../../frontend_static/src/feature-store.js";

test("a record is fetched once, and its label told once", async () => {
  const [asked, told] = [[], []];
  const fetchFeature = async (layer, feature) => {
    asked.push([layer, feature]);
    return { record: { index: feature }, link: "x" };
  };
  const store = createFeatureStore(fetchFeature, { onRecord: (...values) => told.push(values) });
  assert.equal(store.known(1, 2), undefined);
  const [first, second] = await Promise.all([store.read(1, 2), store.read(1, 2)]);
  assert.deepEqual([first, await store.read(1, 2)], [second, { index: 2 }]);
  assert.deepEqual(asked, [[1, 2]]);
  assert.deepEqual(told, [[1, 2, { index: 2 }]]);
  assert.equal(store.about(1, 2).link, "x");
});

test("why there is none is kept", async () => {
  const store = createFeatureStore(async () => ({ record: null, reason: "no folder", hint: "name one" }));
  assert.equal(await store.read(1, 2), null);
  assert.equal(store.known(1, 2), null);
  assert.equal(store.about(1, 2).reason, "no folder");
  assert.deepEqual(store.about(9, 9), {});
});

test("another set's feature of the same number is another feature", async () => {
  let set = "a";
  const store = createFeatureStore(async () => ({ record: { set } }), { scope: () => set });
  assert.deepEqual(await store.read(1, 2), { set: "a" });
  set = "b";
  assert.equal(store.known(1, 2), undefined);
  assert.deepEqual(await store.read(1, 2), { set: "b" });
});

test("a failure is tried again", async () => {
  let fails = true;
  const store = createFeatureStore(async () => {
    if (fails) throw new Error("gone");
    return { record: {} };
  });
  await assert.rejects(store.read(1, 2), /gone/);
  fails = false;
  assert.deepEqual(await store.read(1, 2), {});
});
