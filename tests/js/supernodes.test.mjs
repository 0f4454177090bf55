import assert from "node:assert/strict";
import { test } from "node:test";

import {
  arrangeBoxes,
  boxSize,
  drawingSize,
  layoutBoxes,
  unitPosition,
} from "../../frontend_static/src/box-layout.js";
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

const BOX = boxSize();

test("boxes stand inside the panel, layers upwards, and don't overlap where there is room", () => {
  const nodes = Array.from({ length: 24 }, (_, i) => ({
    ...graphJson().nodes[0],
    node_id: `n${i}`,
    layer: String(i % 5),
    ctx_idx: i % 4,
  }));
  const many = parseGraph(graphJson({ nodes, links: [] }));
  const boxes = makeBoxes(
    many,
    nodes.map((node) => node.node_id),
    [],
  );
  const [width, height] = [1400, 900];
  const places = layoutBoxes(boxes, width, height);
  for (const { x, y } of places) {
    assert.ok(
      x >= BOX.width / 2 && x <= width - BOX.width / 2 && y >= BOX.height / 2 && y <= height - BOX.height / 2,
    );
  }
  places.forEach((a, i) =>
    places.slice(i + 1).forEach((b) => {
      assert.ok(Math.abs(a.x - b.x) >= BOX.width || Math.abs(a.y - b.y) >= BOX.height);
    }),
  );
  const low = places[boxes.findIndex((box) => box.layer === 0)];
  const high = places[boxes.findIndex((box) => box.layer === 4)];
  assert.ok(high.y < low.y);
});

test("a few boxes stay together in the middle of a large panel", () => {
  const places = layoutBoxes(makeBoxes(graph, ["0_5_1", "1_7_2"], []), 3000, 1500);
  assert.ok(Math.abs(places[0].x - places[1].x) < 3 * BOX.width);
  assert.ok(Math.abs((places[0].x + places[1].x) / 2 - 1500) < 1);
});

test("files get a place for every box as soon as one was dragged", () => {
  const state = { pinned: ["0_5_1", "E_3_1"], supernodes: [], positions: {} };
  assert.deepEqual(completePositions(graph, state), {});
  const all = completePositions(graph, { ...state, positions: { "0_5_1": [0.25, 0.75], gone: [0, 0] } });
  assert.deepEqual(Object.keys(all).sort(), ["0_5_1", "E_3_1"]);
  assert.deepEqual(all["0_5_1"], [0.25, 0.75]);
  assert.ok(all.E_3_1.every((value) => value >= 0 && value <= 1));
});

test("a dragged box stays where it was put", () => {
  const boxes = makeBoxes(graph, ["0_5_1", "E_3_1"], []);
  const places = layoutBoxes(boxes, 800, 400, { [boxes[0].key]: [0.25, 0.75] });
  const [u, v] = unitPosition(places[0], 800, 400);
  assert.ok(Math.abs(u - 0.25) < 1e-9 && Math.abs(v - 0.75) < 1e-9);
});

function manyBoxes(count) {
  return Array.from({ length: count }, (_, i) => ({
    key: `b${i}`,
    group: -1,
    label: "",
    members: [{ kind: "feature" }],
    layer: Math.floor(i / 3),
    position: (i * 7) % 11,
  }));
}

function overlaps(places, size) {
  let count = 0;
  for (let i = 0; i < places.length; i += 1)
    for (let j = i + 1; j < places.length; j += 1)
      if (
        Math.abs(places[i].x - places[j].x) < size.width - 1 &&
        Math.abs(places[i].y - places[j].y) < size.height - 1
      )
        count += 1;
  return count;
}

test("every layout keeps boxes inside, apart, and fixed ones in place", () => {
  const boxes = manyBoxes(14);
  const flows = boxes.slice(3).map((_, i) => ({ from: i, to: i + 3, weight: i % 2 ? 0.4 : -0.2 }));
  for (const kind of ["place", "layers", "force"]) {
    const places = arrangeBoxes(kind, boxes, flows, 900, 600, { b4: [0.5, 0.5] }, BOX);
    for (const { x, y } of places) {
      assert.ok(x >= BOX.width / 2 && x <= 900 - BOX.width / 2, kind);
      assert.ok(y >= BOX.height / 2 && y <= 600 - BOX.height / 2, kind);
    }
    assert.deepEqual(
      [Math.round(places[4].x), Math.round(places[4].y)],
      [450, 300],
      `${kind}: what was dragged stays`,
    );
    const again = arrangeBoxes(kind, boxes, flows, 900, 600, { b4: [0.5, 0.5] }, BOX);
    assert.deepEqual(places, again, "the same every time");
    if (kind !== "layers") assert.equal(overlaps(places, BOX), 0, kind);
    assert.equal(overlaps(arrangeBoxes(kind, boxes, flows, 900, 600, {}, BOX), BOX), 0, kind);
  }
});

test("layers follow what flows: sources below targets, positions from left to right", () => {
  const boxes = manyBoxes(6);
  const flows = [
    { from: 0, to: 3, weight: 0.5 },
    { from: 1, to: 4, weight: 0.5 },
    { from: 4, to: 0, weight: 0.5 },
    { from: 2, to: 5, weight: 0.001 },
  ];
  const places = arrangeBoxes("layers", boxes, flows, 900, 600, {}, BOX);
  assert.ok(places[0].y > places[3].y);
  assert.ok(places[1].y > places[4].y);
  assert.equal(places[5].y, places[3].y, "a box without flows stands with those of its layer");
  assert.equal(overlaps(places, BOX), 0);
  const mirrored = arrangeBoxes("layers", boxes, flows, 900, 600, {}, BOX);
  const right = boxes.reduce((sum, box, i) => sum + (box.position - 5) * (mirrored[i].x - 450), 0);
  assert.ok(right > 0);
});

test("hundreds of boxes get a larger drawing, quickly", () => {
  const boxes = manyBoxes(600);
  const size = drawingSize(boxes.length, 800, 400, BOX);
  assert.ok(size.width > 2000);
  assert.equal(Math.round((size.width / size.height) * 10), 20);
  assert.deepEqual(drawingSize(5, 800, 400, BOX), { width: 800, height: 400 });
  const started = performance.now();
  for (const kind of ["place", "layers", "force"]) arrangeBoxes(kind, boxes, [], size.width, size.height, {}, BOX);
  assert.ok(performance.now() - started < 8000);
});
