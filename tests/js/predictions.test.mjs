import assert from "node:assert/strict";
import { test } from "node:test";

import { graphJson } from "./builders.mjs";
import { parseGraph } from "../../frontend_static/src/graph.js";
import { predictedTokens } from "../../frontend_static/src/predictions.js";

const withPredictions = (top_predictions) => {
  const json = graphJson();
  return parseGraph({ ...json, metadata: { ...json.metadata, top_predictions } });
};

test("outputs come by their probability", () => {
  const graph = withPredictions(undefined);
  const rows = predictedTokens(graph);
  assert.deepEqual(
    rows.map(({ index }) => graph.nodes[index].kind),
    ["logit", "logit"],
  );
  assert.ok(rows[0].probability >= rows[1].probability);
});

test("the model's other predictions stand among them, without what the graph has already", () => {
  const rows = predictedTokens(
    withPredictions([
      { token: " seen", id: 42, probability: 0.5 },
      { token: " other", id: 7, probability: 1e-4 },
    ]),
  );
  assert.deepEqual(rows.filter(({ index }) => index === null), [{ token: " other", probability: 1e-4, index: null }]);
});

test("what isn't a list of predictions is passed over", () => {
  for (const given of ["x", {}, [null, 3, { token: 3 }, { token: "a", probability: "b" }]])
    assert.equal(predictedTokens(withPredictions(given)).length, 2);
});

test("outputs of a completion's earlier positions aren't next tokens", () => {
  const json = graphJson();
  const earlier = { ...json.nodes.find(({ node_id }) => node_id === "3_43_2"), node_id: "3_43_1", ctx_idx: 1 };
  const rows = predictedTokens(parseGraph({ ...json, nodes: [...json.nodes, earlier] }));
  assert.equal(rows.length, 2);
});
