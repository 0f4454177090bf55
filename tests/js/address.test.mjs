import assert from "node:assert/strict";
import { test } from "node:test";

import { LONGEST, addressOf, addressToShare, readAddress } from "../../frontend_static/src/address.js";
import { fromParams } from "../../frontend_static/src/annotations.js";

const STATE = { slug: "s", selected: null, threshold: null, pinned: [], supernodes: [], labels: {} };

test("an address with everything reads back as the same view", () => {
  const state = {
    slug: "ü & #?",
    selected: "a",
    threshold: 0.25,
    pinned: ["a", "b"],
    supernodes: [["x & y=+#", "a"]],
    labels: { 43: "50% + more" },
  };
  const { slug, params } = readAddress(`?${addressOf(state, true)}`);
  const back = fromParams(params);
  assert.equal(slug, state.slug);
  assert.deepEqual(
    [back.selected, back.threshold, back.pinned, back.supernodes, back.labels],
    ["a", 0.25, ["a", "b"], state.supernodes, state.labels],
  );
});

test("an address without a parameter doesn't override the file", () => {
  assert.deepEqual(readAddress("?slug=x").params, {});
});

test("the view is told where it isn't the usual one", () => {
  const state = { ...STATE, sign: "negative", tab: "scatter", scatter: { x: "layer", y: "activation" } };
  const text = addressOf({ ...state, layoutText: "link-graph00001416" });
  const { view, layout, annotated } = readAddress(`?${text}`);
  assert.deepEqual(view, { sign: "negative", tab: "scatter", scatter: { x: "layer", y: "activation" } });
  assert.equal(layout, "link-graph00001416");
  assert.equal(annotated, false);
  assert.equal(addressOf({ ...STATE, sign: "all", tab: null, scatter: { x: "", y: "" } }), "slug=s");
  assert.deepEqual(readAddress("?sign=sideways").view, {});
});

test("links stay short: annotations that don't fit are left to the file", () => {
  const few = { ...STATE, pinned: ["a", "b"] };
  assert.deepEqual(addressToShare(few), { query: "slug=s&pinnedIds=a%2Cb", complete: true });
  const many = { ...STATE, pinned: Array.from({ length: 900 }, (_, i) => `12_${i}_7`) };
  const { query, complete } = addressToShare(many);
  assert.equal(complete, false);
  assert.equal(query, "slug=s");
  assert.ok(addressOf(many, true).length > LONGEST);
});
