import assert from "node:assert/strict";
import { test } from "node:test";

import { neuronpediaAddress } from "../../frontend_static/src/neuronpedia.js";

const NODE = { kind: "feature", layer: 20, feature: 412 };
const PAGE = "https://www.neuronpedia.org/gemma-2-2b/20-gemmascope-transcoder-16k/412";

test("known sets have an address", () => {
  for (const scan of ["gemma-2-2b", "mntss/gemma-scope-transcoders", "mwhanna/gemma-scope-transcoders@main"])
    assert.equal(neuronpediaAddress({ scan }, NODE), PAGE);
  const named = { scan: "qwen3-4b", feature_details: { neuronpedia_source_set: "transcoder-hp" } };
  assert.equal(neuronpediaAddress(named, NODE), "https://www.neuronpedia.org/qwen3-4b/20-transcoder-hp/412");
});

test("others have none, and nothing leads off the site", () => {
  assert.equal(neuronpediaAddress({ scan: "demo-clt" }, NODE), null);
  assert.equal(neuronpediaAddress({}, NODE), null);
  assert.equal(neuronpediaAddress({ scan: "gemma-2-2b" }, { ...NODE, kind: "error", feature: null }), null);
  const set = "../../x?y#z";
  const address = neuronpediaAddress({ scan: "m", feature_details: { neuronpedia_source_set: set } }, NODE);
  assert.equal(new URL(address).pathname, `/m/20-${encodeURIComponent(set)}/412`);
  assert.equal(neuronpediaAddress({ scan: "a/b", feature_details: { neuronpedia_source_set: "s" } }, NODE), null);
});
