import assert from "node:assert/strict";
import { test } from "node:test";

import {
  COLUMNS,
  ROWS,
  borders,
  decodeLayout,
  defaultLayout,
  encodeLayout,
  frontOf,
  moveBorder,
  neighbour,
  place,
  shapeFor,
} from "../../frontend_static/src/grid.js";

const PANELS = [
  { name: "link-graph", area: "graph" },
  { name: "subgraph", area: "subgraph" },
  { name: "connections", area: "side" },
  { name: "nodes", area: "side" },
  { name: "feature", area: "feature" },
];

/** Every cell of the grid is covered exactly once, and every panel is somewhere. */
function covers(layout) {
  const cells = new Map();
  for (const { x, y, w, h } of layout)
    for (let i = x; i < x + w; i += 1)
      for (let j = y; j < y + h; j += 1) cells.set(`${i},${j}`, (cells.get(`${i},${j}`) ?? 0) + 1);
  assert.equal(cells.size, COLUMNS * ROWS);
  assert.ok([...cells.values()].every((count) => count === 1));
  assert.deepEqual(
    layout.flatMap((area) => area.names).sort(),
    PANELS.map((panel) => panel.name).sort(),
  );
}

const areaOf = (layout, name) => layout.findIndex((area) => area.names.includes(name));

test("defaults cover the window in every shape", () => {
  for (const shape of ["wide", "low", "tall"]) covers(defaultLayout(PANELS, shape));
  assert.equal(shapeFor(1280, 720), "wide");
  assert.equal(shapeFor(3840, 2160), "wide");
  assert.equal(shapeFor(844, 390), "low");
  assert.equal(shapeFor(390, 844), "tall");
  assert.deepEqual(defaultLayout(PANELS, "low")[0].names, ["link-graph", "subgraph"]);
});

test("a layout survives its string, and tabs share a place in it", () => {
  const layout = defaultLayout(PANELS);
  const text = encodeLayout(layout);
  assert.equal(
    text,
    "link-graph00000809_subgraph00090807_node-connections08000608_clerp-list08000608_feature-detail08080608",
  );
  assert.deepEqual(
    [...decodeLayout(text, PANELS)].sort((a, b) => a.x - b.x || a.y - b.y),
    [...layout],
  );
});

test("strings of other viewers are made to fit", () => {
  const theirs = "button-container08000601_link-graph00000808_subgraph00080808_node-connections08010606_feature-detail08070610";
  const layout = decodeLayout(theirs, PANELS);
  covers(layout);
  assert.deepEqual(layout[areaOf(layout, "nodes")].names, ["connections", "nodes"]);
  covers(decodeLayout("link-graph00001440", PANELS));
  covers(decodeLayout("link-graph99999999_subgraph00000000", PANELS));
  assert.equal(decodeLayout("nothing", PANELS), null);
  assert.equal(decodeLayout("", PANELS), null);
});

test("a border moves what touches it on both sides, and stops before areas vanish", () => {
  const layout = defaultLayout(PANELS);
  const found = borders(layout);
  assert.deepEqual(
    found.map(({ axis, at, from, to }) => [axis, at, from, to]),
    [
      ["x", 8, 0, 16],
      ["y", 9, 0, 8],
      ["y", 8, 8, 14],
    ],
  );
  const moved = moveBorder(layout, found[0], 5);
  covers(moved);
  assert.equal(moved[areaOf(moved, "feature")].w, 9);
  assert.equal(moveBorder(layout, found[0], -3)[0].w, 2);
  assert.equal(moveBorder(layout, found[0], 99)[0].w, 12);
});

test("panels move to halves, tabs and each other's places without leaving gaps", () => {
  const layout = defaultLayout(PANELS);
  const feature = areaOf(layout, "feature");
  for (const zone of ["left", "right", "top", "bottom", "tabs", "swap"]) {
    const moved = place(layout, ["subgraph"], feature, zone);
    covers(moved);
    if (zone === "tabs") assert.deepEqual(moved[areaOf(moved, "subgraph")].names, ["feature", "subgraph"]);
    if (zone === "swap") assert.equal(moved[areaOf(moved, "subgraph")].x, 8);
  }
  const torn = place(layout, ["nodes"], areaOf(layout, "connections"), "bottom");
  covers(torn);
  assert.equal(torn.length, 5);
  assert.equal(place(layout, ["feature"], feature, "left"), null);
});

test("random moves never break the tiling", () => {
  let seed = 7;
  const random = (n) => {
    seed = (seed * 48271) % 2147483647;
    return seed % n;
  };
  const zones = ["left", "right", "top", "bottom", "tabs", "swap"];
  let layout = defaultLayout(PANELS);
  for (let i = 0; i < 400; i += 1) {
    const names = random(2) ? layout[random(layout.length)].names : [PANELS[random(PANELS.length)].name];
    layout = place(layout, names, random(layout.length), zones[random(6)]) ?? layout;
    const lines = borders(layout);
    if (lines.length) layout = moveBorder(layout, lines[random(lines.length)], random(16));
    covers(layout);
    const again = decodeLayout(encodeLayout(layout), PANELS);
    covers(again);
  }
});

test("neighbours and the front of an area", () => {
  const layout = defaultLayout(PANELS);
  assert.equal(neighbour(layout, areaOf(layout, "link-graph"), "right"), areaOf(layout, "nodes"));
  assert.equal(neighbour(layout, areaOf(layout, "link-graph"), "left"), -1);
  assert.equal(neighbour(layout, areaOf(layout, "feature"), "up"), areaOf(layout, "nodes"));
  const side = layout[areaOf(layout, "nodes")];
  assert.equal(frontOf(side, []), "connections");
  assert.equal(frontOf(side, ["nodes"]), "nodes");
  assert.equal(frontOf(side, ["nodes", "connections"]), "connections");
});
