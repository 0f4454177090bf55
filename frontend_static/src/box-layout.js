/* Where the boxes of the subgraph stand: by position and layer, in layers by what flows between them, or pulled by it. Pure. */

import { clamp } from "./scales.js";

const BOX = Object.freeze({ width: 120, height: 38, line: 15, gap: 14 });
const LOOSEST = Object.freeze({ x: 2.3, y: 3.2 });
const CROWDED = 1.7;
/** Weaker flows don't count for layers. */
const FAINT = 0.003;
const SEPARATION = 20;
const SWEEPS = 8;
const TICKS = 220;

/** The ways to lay boxes out, with what people read. */
export const LAYOUTS = Object.freeze({ place: "by position", layers: "layered", force: "by force" });

/** The size of a box, and the room around it, for a font of `em` pixels. */
export function boxSize(em = 13, lines = 1) {
  const height = BOX.height + (lines - 1) * BOX.line;
  return { width: (BOX.width * em) / 13, height: (height * em) / 13, gap: BOX.gap };
}

/** The size of the drawing for so many boxes: the panel's, or larger in the same shape where they would have no room. */
export function drawingSize(count, width, height, size = boxSize()) {
  const needed = count * (size.width + size.gap) * (size.height + size.gap) * CROWDED;
  const factor = Math.max(1, Math.sqrt(needed / Math.max(1, width * height)));
  return { width: Math.round(width * factor), height: Math.round(height * factor) };
}

/**
 * Box centres in a panel of `width` × `height` pixels: positions run left to right, layers bottom to top, boxes are pushed
 * apart, and few of them stay together in the middle. `fixed` holds boxes that were dragged, as [x, y] from 0 to 1 by key;
 * they stay where they are.
 */
export function layoutBoxes(boxes, width, height, fixed = {}, size = boxSize()) {
  const inner = { x: size.width / 2 + 8, y: size.height / 2 + 8 };
  const rankX = ranks(boxes.map((box) => box.position));
  const rankY = ranks(boxes.map((box) => box.layer));
  const span = { x: Math.max(1, width - 2 * inner.x), y: Math.max(1, height - 2 * inner.y) };
  const used = {
    x: Math.min(span.x, (new Set(rankX).size - 1) * size.width * LOOSEST.x),
    y: Math.min(span.y, (new Set(rankY).size - 1) * size.height * LOOSEST.y),
  };
  const placed = boxes.map((box, i) => {
    const pinned = fixed[box.key];
    if (pinned) return { x: inner.x + pinned[0] * span.x, y: inner.y + pinned[1] * span.y, fixed: true };
    return {
      x: width / 2 + (rankX[i] - 0.5) * used.x,
      y: height / 2 + (0.5 - rankY[i]) * used.y,
      fixed: false,
    };
  });
  for (let round = 0; round < 120 && pushApart(placed, size); round += 1)
    keepInside(placed, inner, width, height);
  keepInside(placed, inner, width, height);
  return placed;
}

/** A centre in pixels as [x, y] from 0 to 1, the inverse of what `layoutBoxes` does with `fixed`. */
export function unitPosition({ x, y }, width, height, size = boxSize()) {
  const inner = { x: size.width / 2 + 8, y: size.height / 2 + 8 };
  return [
    clamp((x - inner.x) / Math.max(1, width - 2 * inner.x), 0, 1),
    clamp((y - inner.y) / Math.max(1, height - 2 * inner.y), 0, 1),
  ];
}


/**
 * Box centres for one of `LAYOUTS`. `flows` are the effects between boxes, `[{from, to, weight}]`; the other arguments are those of
 * `layoutBoxes`, and boxes in `fixed` stay where they are in every layout.
 */
export function arrangeBoxes(kind, boxes, flows, width, height, fixed = {}, size = boxSize()) {
  const start = layoutBoxes(boxes, width, height, fixed, size);
  if (boxes.length < 2 || kind === "place") return start;
  const inner = { x: size.width / 2 + 8, y: size.height / 2 + 8 };
  if (kind === "layers") {
    const places = layered(boxes, flows, size, { width, height, inner });
    return start.map((place, i) => (place.fixed ? place : places[i]));
  }
  return forced(boxes, flows, start, size, { width, height, inner });
}

/** Layers from bottom to top along the flows, each ordered so that flows cross little, positions from left to right on the whole. */
function layered(boxes, flows, size, { width, height, inner }) {
  const kept = flows.filter(
    ({ from, to, weight }) => Math.abs(weight) >= FAINT && boxes[from].layer < boxes[to].layer,
  );
  const rank = longestPaths(boxes, kept);
  const room = Math.max(1, Math.floor((width - 2 * inner.x) / (size.width + SEPARATION)) + 1);
  const rows = orderRows(boxes, kept, rank).flatMap((row) => staggered(row, room));
  const places = new Array(boxes.length);
  const widest = Math.max(2, ...rows.map((row) => row.length)) - 1;
  const step = Math.min((size.width + SEPARATION) * LOOSEST.x, (width - 2 * inner.x) / widest);
  const rise = Math.min((height - 2 * inner.y) / Math.max(1, rows.length - 1), size.height * LOOSEST.y);
  rows.forEach((row, r) =>
    row.forEach((box, i) => {
      places[box] = {
        x: width / 2 + (i - (row.length - 1) / 2) * step,
        y: height / 2 + ((rows.length - 1) / 2 - r) * rise,
        fixed: false,
      };
    }),
  );
  if (lean(boxes, places) < 0) for (const place of places) place.x = width - place.x;
  for (let round = 0; round < 60 && pushApart(places, size); round += 1) keepInside(places, inner, width, height);
  keepInside(places, inner, width, height);
  return places;
}

/** A row that is too long, as several that take turns, so that the order from left to right remains. */
function staggered(row, room) {
  const count = Math.ceil(row.length / room);
  return Array.from({ length: count }, (_, k) => row.filter((__, i) => i % count === k));
}

/** Layer numbers: one more than the highest of those that flow into a box. Flows go from lower to higher boxes, so there is no circle. */
function longestPaths(boxes, flows) {
  const rank = new Array(boxes.length).fill(0);
  const into = boxes.map(() => []);
  for (const { from, to } of flows) into[to].push(from);
  const upwards = boxes.map((_, i) => i).sort((a, b) => boxes[a].layer - boxes[b].layer);
  for (const i of upwards) rank[i] = into[i].reduce((most, from) => Math.max(most, rank[from] + 1), 0);
  const joined = new Set(flows.flatMap(({ from, to }) => [from, to]));
  const steps = [...joined].sort((a, b) => boxes[a].layer - boxes[b].layer);
  const isOutput = (box) => box.members.every((node) => node.kind === "logit");
  const top = Math.max(...rank.map((value, i) => (isOutput(boxes[i]) ? value : value + 1)));
  boxes.forEach((box, i) => {
    if (isOutput(box)) rank[i] = top;
    else if (!joined.has(i)) rank[i] = rank[steps.findLast((other) => boxes[other].layer <= box.layer)] ?? 0;
  });
  return rank;
}

function orderRows(boxes, flows, rank) {
  const rows = Array.from({ length: Math.max(...rank) + 1 }, () => []);
  boxes.forEach((_, i) => rows[rank[i]].push(i));
  const filled = rows.filter((row) => row.length > 0);
  const at = new Array(boxes.length);
  const settle = (row) =>
    row.forEach((box, i) => {
      at[box] = (i + 0.5) / row.length;
    });
  for (const row of filled) {
    row.sort((a, b) => boxes[a].position - boxes[b].position || a - b);
    settle(row);
  }
  const ends = boxes.map(() => []);
  for (const { from, to, weight } of flows) {
    ends[from].push([to, Math.abs(weight)]);
    ends[to].push([from, Math.abs(weight)]);
  }
  const centre = (box) => {
    const total = ends[box].reduce((sum, [, weight]) => sum + weight, 0);
    return total ? ends[box].reduce((sum, [other, weight]) => sum + at[other] * weight, 0) / total : at[box];
  };
  for (let sweep = 0; sweep < SWEEPS; sweep += 1)
    for (const row of sweep % 2 ? [...filled].reverse() : filled) {
      const wish = new Map(row.map((box) => [box, centre(box)]));
      row.sort((a, b) => wish.get(a) - wish.get(b) || boxes[a].position - boxes[b].position || a - b);
      settle(row);
    }
  return filled;
}

/** Positive where later positions stand further right. */
function lean(boxes, places) {
  const mean = boxes.reduce((sum, box) => sum + box.position, 0) / boxes.length;
  const middle = places.reduce((sum, place) => sum + place.x, 0) / places.length;
  return boxes.reduce((sum, box, i) => sum + (box.position - mean) * (places[i].x - middle), 0);
}

/** Flows pull, boxes push each other off; weakly by position from left to right, strongly by layer from bottom to top. */
function forced(boxes, flows, start, size, { width, height, inner }) {
  const places = start.map((place) => ({ ...place }));
  const home = layoutBoxes(boxes, width, height, {}, size);
  const far = size.width * 2.6;
  const ticks = boxes.length > 300 ? 40 : TICKS;
  for (let tick = 0; tick < ticks; tick += 1) {
    const heat = 1 - tick / ticks;
    const push = places.map(() => ({ x: 0, y: 0 }));
    repel(places, push, far);
    for (const { from, to, weight } of flows) {
      const pull = 0.05 * Math.min(1, Math.abs(weight) * 3);
      const dx = places[to].x - places[from].x;
      push[from].x += dx * pull;
      push[to].x -= dx * pull;
    }
    places.forEach((place, i) => {
      if (place.fixed) return;
      place.x += heat * (push[i].x + (home[i].x - place.x) * 0.02);
      place.y += heat * (push[i].y + (home[i].y - place.y) * 0.4);
    });
    keepInside(places, inner, width, height);
  }
  for (let round = 0; round < 120 && pushApart(places, size); round += 1) keepInside(places, inner, width, height);
  keepInside(places, inner, width, height);
  return places;
}

function repel(places, push, far) {
  for (let i = 0; i < places.length; i += 1)
    for (let j = i + 1; j < places.length; j += 1) {
      const [dx, dy] = [places[j].x - places[i].x || 0.01 * (i - j), places[j].y - places[i].y];
      const distance = Math.hypot(dx, dy);
      if (distance > far) continue;
      const force = (1 - distance / far) * 9;
      const [fx, fy] = [(dx / distance) * force, (dy / distance) * force * 0.4];
      push[i].x -= fx;
      push[i].y -= fy;
      push[j].x += fx;
      push[j].y += fy;
    }
}

/** Ranks from 0 to 1, equal values sharing one; a single value stands in the middle. */
function ranks(values) {
  const distinct = [...new Set(values)].sort((a, b) => a - b);
  return values.map((value) => (distinct.length < 2 ? 0.5 : distinct.indexOf(value) / (distinct.length - 1)));
}

/** One round; only boxes that share a cell of a grid, or lie in neighbouring ones, can overlap. */
function pushApart(placed, size) {
  const [width, height] = [size.width + size.gap, size.height + size.gap];
  const cells = new Map();
  const key = (column, row) => column * 65_536 + row;
  placed.forEach(({ x, y }, i) => {
    const at = key(Math.floor(x / width), Math.floor(y / height));
    if (cells.has(at)) cells.get(at).push(i);
    else cells.set(at, [i]);
  });
  let moved = false;
  for (let i = 0; i < placed.length; i += 1) {
    const [column, row] = [Math.floor(placed[i].x / width), Math.floor(placed[i].y / height)];
    for (let c = column - 1; c <= column + 1; c += 1)
      for (let r = row - 1; r <= row + 1; r += 1)
        for (const j of cells.get(key(c, r)) ?? [])
          if (j > i) moved = separate(placed[i], placed[j], j - i, size) || moved;
  }
  return moved;
}

function separate(a, b, tie, size) {
  if (a.fixed && b.fixed) return false;
  const [dx, dy] = [b.x - a.x, b.y - a.y];
  const overlapX = size.width + size.gap - Math.abs(dx);
  const overlapY = size.height + size.gap - Math.abs(dy);
  if (overlapX <= 0.5 || overlapY <= 0.5) return false;
  const axis = overlapX * size.height < overlapY * size.width ? "x" : "y";
  const direction = Math.sign(axis === "x" ? dx : dy) || (tie % 2 ? 1 : -1);
  const step = (axis === "x" ? overlapX : overlapY) / 2;
  if (!a.fixed) a[axis] -= direction * step * (b.fixed ? 2 : 1);
  if (!b.fixed) b[axis] += direction * step * (a.fixed ? 2 : 1);
  return true;
}

function keepInside(placed, inner, width, height) {
  for (const place of placed) {
    if (place.fixed) continue;
    place.x = clamp(place.x, inner.x, Math.max(inner.x, width - inner.x));
    place.y = clamp(place.y, inner.y, Math.max(inner.y, height - inner.y));
  }
}
