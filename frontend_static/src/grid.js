/*
 * Where the panels stand: a grid of 14 columns and 16 rows that areas cover, each with one panel or several behind tabs. Pure.
 *
 * A layout is a frozen array of areas `{names, x, y, w, h}` in grid units. Nothing changes in place: every function gives a new layout.
 */

import { clamp } from "./scales.js";

export const COLUMNS = 14;
export const ROWS = 16;
const LEAST = 2;
const ITEM = /^([a-z-]+)(\d\d)(\d\d)(\d\d)(\d\d)$/;

/** Names of our panels in `qParams.gridsnap` of other viewers. */
const CODES = Object.freeze({
  connections: "node-connections",
  nodes: "clerp-list",
  scatter: "feature-scatter",
  feature: "feature-detail",
});
const NAMES = Object.freeze(Object.fromEntries(Object.entries(CODES).map(([name, code]) => [code, name])));

const SHAPES = Object.freeze({
  wide: { graph: [0, 0, 8, 9], subgraph: [0, 9, 8, 7], side: [8, 0, 6, 8], feature: [8, 8, 6, 8] },
  low: { graph: [0, 0, 8, 16], subgraph: "graph", side: [8, 0, 6, 16], feature: "side" },
  tall: { graph: [0, 0, 14, 8], subgraph: "graph", side: [0, 8, 14, 8], feature: "side" },
});

/** Which default suits a window: `wide` for desktops, `low` for a phone held sideways, `tall` for one held upright. */
export function shapeFor(width, height) {
  if (width < 720 && height > width) return "tall";
  return height < 560 || width < 900 ? "low" : "wide";
}

/** The default layout of panels `[{name, area}]`. */
export function defaultLayout(panels, shape = "wide") {
  const areas = new Map();
  for (const { name, area } of panels) {
    const place = SHAPES[shape][area] ?? "side";
    const key = typeof place === "string" ? place : area;
    const [x, y, w, h] = SHAPES[shape][key];
    const names = areas.get(key)?.names ?? [];
    areas.set(key, { names: [...names, name], x, y, w, h });
  }
  return freeze([...areas.values()]);
}

/** `link-graph00000809_subgraph00090807_…`: panels with the same place share an area. */
export function encodeLayout(layout) {
  const two = (value) => String(value).padStart(2, "0");
  return layout
    .flatMap(({ names, x, y, w, h }) =>
      names.map((name) => `${CODES[name] ?? name}${[x, y, w, h].map(two).join("")}`),
    )
    .join("_");
}

/**
 * The layout that a string names, made to fit: areas don't overlap, nothing hangs over, gaps are closed where a neighbour can grow,
 * and panels that it doesn't name join those that they usually stand with. Null if it names no panel of ours.
 */
export function decodeLayout(text, panels) {
  const known = new Set(panels.map((panel) => panel.name));
  const areas = new Map();
  const seen = new Set();
  for (const item of String(text).split("_")) {
    const match = ITEM.exec(item);
    const name = match && (NAMES[match[1]] ?? match[1]);
    if (!match || !known.has(name) || seen.has(name)) continue;
    seen.add(name);
    const [x, y, w, h] = match.slice(2).map(Number);
    const key = match.slice(2).join();
    if (areas.has(key)) areas.get(key).names.push(name);
    else areas.set(key, { names: [name], ...within(x, y, w, h) });
  }
  if (areas.size === 0) return null;
  return settle(withMissing([...areas.values()], panels, seen));
}

function within(x, y, w, h) {
  const width = clamp(w, LEAST, COLUMNS);
  return { x: clamp(x, 0, COLUMNS - width), y, w: width, h: clamp(h, LEAST, ROWS) };
}

function withMissing(areas, panels, seen) {
  for (const { name, area } of panels) {
    if (seen.has(name)) continue;
    const mates = panels.filter((panel) => panel.area === area).map((panel) => panel.name);
    const home = areas.find(({ names }) => names.some((other) => mates.includes(other))) ?? areas.at(-1);
    home.names.push(name);
  }
  return areas;
}

/** Pushes areas apart and up, squeezes them into the rows, and lets them grow into gaps. */
export function settle(areas) {
  const placed = [];
  for (const area of [...areas].sort((a, b) => a.y - b.y || a.x - b.x)) {
    const next = { ...area, y: 0 };
    while (placed.some((other) => overlap(next, other))) next.y += 1;
    placed.push(next);
  }
  return freeze(grow(squeeze(placed)));
}

/** Scales the rows into the window; what was apart stays apart. */
function squeeze(areas) {
  const lines = [...new Set(areas.flatMap(({ y, h }) => [y, y + h]))].sort((a, b) => a - b);
  const used = lines.at(-1);
  if (used <= ROWS) return areas;
  const scaled = lines.map((line) => Math.round((line * ROWS) / used));
  for (let i = 1; i < scaled.length; i += 1) scaled[i] = Math.max(scaled[i], scaled[i - 1] + 1);
  scaled[scaled.length - 1] = ROWS;
  for (let i = scaled.length - 2; i >= 0; i -= 1) scaled[i] = Math.min(scaled[i], scaled[i + 1] - 1);
  const row = new Map(lines.map((line, i) => [line, scaled[i]]));
  return areas.map((area) => ({ ...area, y: row.get(area.y), h: row.get(area.y + area.h) - row.get(area.y) }));
}

function grow(areas) {
  const free = (area, self) =>
    area.x >= 0 &&
    area.y >= 0 &&
    area.x + area.w <= COLUMNS &&
    area.y + area.h <= ROWS &&
    areas.every((other, i) => i === self || !overlap(area, other));
  const steps = [
    { w: 1 },
    { h: 1 },
    { x: -1, w: 1 },
    { y: -1, h: 1 },
  ];
  areas.forEach((area, i) => {
    for (const step of steps) {
      const bigger = () => Object.fromEntries(["x", "y", "w", "h"].map((key) => [key, area[key] + (step[key] ?? 0)]));
      while (free(bigger(), i)) Object.assign(area, bigger());
    }
  });
  return areas;
}

function overlap(a, b) {
  return a.x < b.x + b.w && b.x < a.x + a.w && a.y < b.y + b.h && b.y < a.y + a.h;
}

/**
 * The borders that can be moved: `{axis, at, from, to, before, after}`, `before` and `after` being area numbers on either side. Areas whose
 * edges lie on one line and touch move together.
 */
export function borders(layout) {
  return ["x", "y"].flatMap((axis) => {
    const [start, size, cross, crossSize] = axis === "x" ? ["x", "w", "y", "h"] : ["y", "h", "x", "w"];
    const lines = [...new Set(layout.map((area) => area[start]))].filter((at) => at > 0);
    return lines.flatMap((at) => {
      const sides = layout.flatMap((area, index) => {
        const range = { index, from: area[cross], to: area[cross] + area[crossSize] };
        if (area[start] + area[size] === at) return [{ ...range, side: "before" }];
        return area[start] === at ? [{ ...range, side: "after" }] : [];
      });
      return runs(sides).map((run) => ({
        axis,
        at,
        from: Math.min(...run.map((part) => part.from)),
        to: Math.max(...run.map((part) => part.to)),
        before: run.filter((part) => part.side === "before").map((part) => part.index),
        after: run.filter((part) => part.side === "after").map((part) => part.index),
      }));
    });
  }).filter((border) => border.before.length > 0 && border.after.length > 0);
}

/** Ranges that overlap, directly or through others, in one list. */
function runs(parts) {
  const found = [];
  for (const part of [...parts].sort((a, b) => a.from - b.from)) {
    const last = found.at(-1);
    if (last && last.some((other) => other.from < part.to && part.from < other.to)) last.push(part);
    else found.push([part]);
  }
  return found;
}

/** Moves a border to a grid line, as far as every area keeps its least size. */
export function moveBorder(layout, border, to) {
  const [start, size] = border.axis === "x" ? ["x", "w"] : ["y", "h"];
  const low = Math.max(...border.before.map((i) => layout[i][start] + LEAST));
  const high = Math.min(...border.after.map((i) => layout[i][start] + layout[i][size] - LEAST));
  if (low > high) return layout;
  const at = clamp(Math.round(to), low, high);
  return freeze(
    layout.map((area, i) => {
      if (border.before.includes(i)) return { ...area, [size]: at - area[start] };
      if (!border.after.includes(i)) return area;
      return { ...area, [start]: at, [size]: area[start] + area[size] - at };
    }),
  );
}

/**
 * Moves panels to another area: `zone` is `left`, `right`, `top` or `bottom` to take that half of it, `tabs` to stand behind a tab in it,
 * `swap` to change places with it. Null where there is no room.
 */
export function place(layout, names, target, zone) {
  const from = layout.findIndex((area) => area.names.includes(names[0]));
  const whole = layout[from].names.every((name) => names.includes(name));
  if (from === target && (whole || zone === "tabs" || zone === "swap")) return null;
  if (zone === "swap") return swap(layout, from, target);
  const [first] = layout[target].names.filter((name) => !names.includes(name));
  const rest = without(layout, names);
  const at = rest.findIndex((area) => area.names.includes(first));
  if (zone === "tabs")
    return freeze(rest.map((area, i) => (i === at ? { ...area, names: [...area.names, ...names] } : area)));
  const halves = split(rest[at], zone);
  return halves && freeze([...rest.filter((_, i) => i !== at), halves.kept, { ...halves.given, names: [...names] }]);
}

function swap(layout, a, b) {
  const names = { [a]: layout[b].names, [b]: layout[a].names };
  return freeze(layout.map((area, i) => ({ ...area, names: names[i] ?? area.names })));
}

function split(area, zone) {
  const sideways = zone === "left" || zone === "right";
  const [start, size] = sideways ? ["x", "w"] : ["y", "h"];
  if (area[size] < 2 * LEAST) return null;
  const half = Math.floor(area[size] / 2);
  const first = zone === "left" || zone === "top";
  const given = { ...area, [size]: half, [start]: first ? area[start] : area[start] + area[size] - half };
  const kept = { ...area, [size]: area[size] - half, [start]: first ? area[start] + half : area[start] };
  return { given, kept };
}

/** The layout without these panels; what an emptied area leaves is taken by the neighbours that border on all of one side. */
function without(layout, names) {
  const emptied = layout.find((area) => area.names.every((name) => names.includes(name)));
  const rest = layout
    .filter((area) => area !== emptied)
    .map((area) => ({ ...area, names: area.names.filter((name) => !names.includes(name)) }));
  if (!emptied) return rest;
  for (const [side, take] of Object.entries(TAKERS)) {
    const neighbours = rest.filter((area) => take.touches(area, emptied));
    const length = neighbours.reduce((sum, area) => sum + area[take.along], 0);
    if (neighbours.length === 0 || length !== emptied[take.along]) continue;
    return rest.map((area) => (neighbours.includes(area) ? grown(area, emptied, side) : area));
  }
  return grow(rest);
}

const inside = (area, hole, start, size) =>
  area[start] >= hole[start] && area[start] + area[size] <= hole[start] + hole[size];
const TAKERS = {
  top: { along: "w", touches: (a, hole) => a.y + a.h === hole.y && inside(a, hole, "x", "w") },
  bottom: { along: "w", touches: (a, hole) => a.y === hole.y + hole.h && inside(a, hole, "x", "w") },
  left: { along: "h", touches: (a, hole) => a.x + a.w === hole.x && inside(a, hole, "y", "h") },
  right: { along: "h", touches: (a, hole) => a.x === hole.x + hole.w && inside(a, hole, "y", "h") },
};

function grown(area, hole, side) {
  if (side === "top") return { ...area, h: area.h + hole.h };
  if (side === "left") return { ...area, w: area.w + hole.w };
  if (side === "bottom") return { ...area, y: hole.y, h: area.h + hole.h };
  return { ...area, x: hole.x, w: area.w + hole.w };
}

/** The number of the area that lies next to another in a direction, or −1; the one that shares the longest border. */
export function neighbour(layout, index, direction) {
  const area = layout[index];
  const sideways = direction === "left" || direction === "right";
  const shared = (other) =>
    sideways
      ? Math.min(area.y + area.h, other.y + other.h) - Math.max(area.y, other.y)
      : Math.min(area.x + area.w, other.x + other.w) - Math.max(area.x, other.x);
  const beyond = {
    left: (other) => other.x + other.w <= area.x,
    right: (other) => other.x >= area.x + area.w,
    up: (other) => other.y + other.h <= area.y,
    down: (other) => other.y >= area.y + area.h,
  }[direction];
  const found = layout
    .map((other, i) => ({ i, length: shared(other), beyond: beyond(other) }))
    .filter((entry) => entry.beyond && entry.length > 0)
    .sort((a, b) => b.length - a.length);
  return found[0]?.i ?? -1;
}

/** Of an area's panels the one in front: that which was raised last. */
export function frontOf(area, raised) {
  return area.names.reduce((best, name) => (raised.indexOf(name) > raised.indexOf(best) ? name : best));
}

function freeze(areas) {
  return Object.freeze(
    areas.map((area) => Object.freeze({ ...area, names: Object.freeze([...area.names]) })),
  );
}
