import assert from "node:assert/strict";
import { test } from "node:test";

import { parseGraph } from "../../frontend_static/src/graph.js";
import { usualDrivers } from "../../frontend_static/src/usual.js";
import { cantor, graphJson } from "./builders.mjs";

const json = graphJson();
const graph = parseGraph({
  ...json,
  nodes: [...json.nodes, { ...json.nodes[0], node_id: "0_6_2", ctx_idx: 2, feature: cantor(0, 6), clerp: "beside" }],
  links: [...json.links, { source: "0_6_2", target: "1_7_2", weight: 0.75 }],
});

test("what usually drives a feature stands beside its links at the same position", () => {
  const record = { usual_drivers: [[0, 6, 0.5, 0.25], [0, 5, -0.1, 1], [0, 9, 0.05, 0.5]] };
  const rows = usualDrivers(graph, graph.node("1_7_2"), record, {}, { [cantor(0, 9)]: "Texas" });
  assert.deepEqual(
    rows.map(({ id, label, here, isNode }) => [id, label, here, isNode]),
    [
      ["0_6_2", "L0 · beside", 0.75, true],
      ["0_5_2", "L0 · Feature 5", null, false],
      ["0_9_2", "L0 · Texas", null, false],
    ],
  );
});

test("records without drivers, or with damaged ones, have none", () => {
  for (const record of [null, {}, { usual_drivers: 3 }, { usual_drivers: [null, [1, 2], ["a", 1, 2, 3]] }])
    assert.deepEqual(usualDrivers(graph, graph.node("1_7_2"), record, {}, {}), []);
});
