import assert from "node:assert/strict";
import { test } from "node:test";

import { parseGraph } from "../../frontend_static/src/graph.js";
import {
  boxEdges,
  completePositions,
  dissolveGroup,
  groupConnections,
  makeBoxes,
  commonLabel,
  mergeGroups,
  renameGroup,
} from "../../frontend_static/src/supernodes.js";
import { graphJson } from "./builders.mjs";

const graph = parseGraph(graphJson());

test("groups keep their pinned members only, and vanish without any", () => {
  const boxes = makeBoxes(
    graph,
    ["0_5_1", "E_3_1", "gone"],
    [
      ["g", "0_5_1", "1_7_2"],
      ["empty", "1_-1_2"],
    ],
  );
  assert.deepEqual(
    boxes.map(({ label, members }) => [label, members.map((node) => node.id)]),
    [
      ["g", ["0_5_1"]],
      ["", ["E_3_1"]],
    ],
  );
});

test("a node in two groups belongs to the first", () => {
  const boxes = makeBoxes(
    graph,
    ["0_5_1"],
    [
      ["one", "0_5_1"],
      ["two", "0_5_1"],
    ],
  );
  assert.deepEqual(
    boxes.map((box) => box.label),
    ["one"],
  );
});

test("an edge between single nodes is the link's share of the target's input", () => {
  const boxes = makeBoxes(graph, ["E_3_1", "1_7_2"], []);
  assert.deepEqual(boxEdges(graph, boxes), [{ from: 0, to: 1, weight: 0.75 }]);
});

test("input from inside a group doesn't count, and members weigh by how open they are", () => {
  const boxes = makeBoxes(graph, ["0_5_1", "1_7_2", "E_3_1"], [["g", "0_5_1", "1_7_2"]]);
  const [edge] = boxEdges(graph, boxes);
  /* 0_5_1 is open with 3/3, 1_7_2 with 3/4; from outside, all of either comes from the token. */
  const [first, second] = [1, 0.75];
  assert.deepEqual([edge.from, edge.to], [1, 0]);
  assert.ok(Math.abs(edge.weight - (first + second) / (first + second)) < 1e-12);
});

test("a group's connections are summed per outside node", () => {
  const members = [graph.index("0_5_1"), graph.index("1_7_2")];
  const [token] = groupConnections(graph, members, "input");
  assert.equal(token.other, graph.index("E_3_1"));
  assert.equal(token.weight, 6);
  assert.ok(groupConnections(graph, members, "output").every(({ other }) => !members.includes(other)));
});

test("merging dissolves touched groups and reuses their label", () => {
  const groups = [
    ["old", "a", "b"],
    ["other", "z"],
  ];
  assert.deepEqual(mergeGroups(groups, ["b", "c"]), [
    ["other", "z"],
    ["old", "a", "b", "c"],
  ]);
  assert.deepEqual(mergeGroups([], ["a", "b"], ["", "first"]), [["first", "a", "b"]]);
  assert.deepEqual(mergeGroups([], ["a", "b"]), [["supernode", "a", "b"]]);
  assert.deepEqual(dissolveGroup(groups, 0), [["other", "z"]]);
  assert.deepEqual(renameGroup(groups, 1, "  "), [
    ["old", "a", "b"],
    ["supernode", "z"],
  ]);
});

test("a common label is what all labels say, or the first part that they share", () => {
  assert.equal(commonLabel(["Texas", "Texas"]), "Texas");
  assert.equal(commonLabel(["Houston · Texas", "Texas · Austin → Dallas", "is, Texas"]), "Texas");
  assert.equal(commonLabel(["Texas", "say Texas"]), "");
  assert.equal(commonLabel([]), "");
});



test("files get a place for every box as soon as one was dragged", () => {
  const graph = parseGraph(graphJson());
  const state = { pinned: ["0_5_1", "1_7_2", "E_3_1"], supernodes: [], positions: {} };
  assert.deepEqual(completePositions(graph, state), { positions: {}, boxFrame: null });
  const { positions, boxFrame } = completePositions(graph, { ...state, positions: { "0_5_1": [0.25, 0.5] } });
  assert.deepEqual(Object.keys(positions).sort(), ["0_5_1", "1_7_2", "E_3_1"]);
  assert.equal(boxFrame.length, 2);
  assert.deepEqual(completePositions(graph, { ...state, positions, boxFrame }), { positions, boxFrame });
});

test("an expanded group has a box per member", () => {
  const graph = parseGraph(graphJson());
  const groups = [["both", "0_5_1", "1_7_2"]];
  const boxes = makeBoxes(graph, ["0_5_1", "1_7_2", "E_3_1"], groups, ["1_7_2"]);
  assert.deepEqual(boxes.map(({ key, frame }) => [key, frame]), [["0_5_1", 0], ["1_7_2", 0], ["E_3_1", undefined]]);
  assert.equal(makeBoxes(graph, ["0_5_1", "1_7_2"], groups).length, 1);
});
