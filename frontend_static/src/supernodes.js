/* The subgraph: pinned nodes as boxes, groups of them as one box, what flows between boxes, where boxes stand. Pure. */

import { clamp } from "./scales.js";

export const MAX_BOXES = 200;
const BOX = Object.freeze({ width: 116, height: 38, gap: 14 });
const LOOSEST = Object.freeze({ x: 2.3, y: 3.2 });
const UNNAMED = "supernode";

/**
 * The boxes of the subgraph: one per group with pinned members, one per other pinned node.
 * Each is `{key, label, group, members, layer, position}`; `group` is the supernode's number or −1.
 */
export function makeBoxes(graph, pinned, supernodes) {
  const shown = new Set(pinned.filter((id) => graph.index(id) >= 0));
  const boxes = [];
  supernodes.forEach(([label, ...ids], group) => {
    const members = ids.filter((id) => shown.delete(id)).map((id) => graph.node(id));
    if (members.length > 0) boxes.push(makeBox(label || UNNAMED, group, members));
  });
  for (const id of shown) boxes.push(makeBox("", -1, [graph.node(id)]));
  return boxes.slice(0, MAX_BOXES);
}

function makeBox(label, group, members) {
  const mean = (value) => members.reduce((sum, node) => sum + value(node), 0) / members.length;
  return {
    key: members
      .map((node) => node.id)
      .sort()
      .join("|"),
    label,
    group,
    members,
    layer: mean((node) => node.layer),
    position: mean((node) => node.position),
  };
}

/**
 * Effects between boxes, `[{from, to, weight}]` with box numbers, strongest first.
 *
 * A link counts as its part of the target's input from outside its own box, weighted by how much of the target's input comes
 * from outside, relative to the other members of the box.
 */
export function boxEdges(graph, boxes) {
  const boxOf = new Map(boxes.flatMap((box, i) => box.members.map((node) => [node.index, i])));
  const sums = new Map();
  boxes.forEach((box, to) => {
    const external = box.members.map((node) => externalInput(graph, node.index, boxOf));
    const openness = external.map((sum, i) => sum / (graph.links.inputAbsSum[box.members[i].index] || 1));
    const total = openness.reduce((sum, value) => sum + value, 0) || 1;
    box.members.forEach((node, i) => {
      for (const link of graph.inputs(node.index)) {
        const from = boxOf.get(graph.links.source[link]);
        if (from === undefined || from === to) continue;
        const part = (graph.links.weight[link] / (external[i] || 1)) * (openness[i] / total);
        sums.set(from * boxes.length + to, (sums.get(from * boxes.length + to) ?? 0) + part);
      }
    });
  });
  return [...sums]
    .map(([key, weight]) => ({ from: Math.floor(key / boxes.length), to: key % boxes.length, weight }))
    .sort((a, b) => Math.abs(b.weight) - Math.abs(a.weight) || a.from - b.from || a.to - b.to);
}

function externalInput(graph, index, boxOf) {
  let sum = 0;
  for (const link of graph.inputs(index)) {
    if (boxOf.get(graph.links.source[link]) !== boxOf.get(index)) sum += Math.abs(graph.links.weight[link]);
  }
  return sum;
}

/** All effects of a group's members on one outside node, or its on them: summed shares by the other node's index. */
export function groupConnections(graph, memberIndices, direction) {
  const members = new Set(memberIndices);
  const sums = new Map();
  for (const index of members) {
    for (const link of direction === "input" ? graph.inputs(index) : graph.outputs(index)) {
      const other = direction === "input" ? graph.links.source[link] : graph.links.target[link];
      if (members.has(other)) continue;
      const sum = sums.get(other) ?? { other, share: 0, weight: 0 };
      sum.share += graph.links.share[link] / (direction === "input" ? members.size : 1);
      sum.weight += graph.links.weight[link];
      sums.set(other, sum);
    }
  }
  return [...sums.values()].sort((a, b) => Math.abs(b.share) - Math.abs(a.share) || a.other - b.other);
}

/** The size of a box, and the room around it, for a font of `em` pixels. */
export function boxSize(em = 13) {
  return { width: (BOX.width * em) / 13, height: (BOX.height * em) / 13, gap: BOX.gap };
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

/** A place for every box if any was dragged, as files want it: what is missing is laid out; empty if none was. */
export function completePositions(graph, { pinned, supernodes, positions }) {
  if (Object.keys(positions).length === 0) return {};
  const [width, height] = [1000, 600];
  const boxes = makeBoxes(graph, pinned, supernodes);
  const places = layoutBoxes(boxes, width, height, positions);
  return Object.fromEntries(
    boxes.map(({ key }, i) => [key, positions[key] ?? unitPosition(places[i], width, height)]),
  );
}

/** Ranks from 0 to 1, equal values sharing one; a single value stands in the middle. */
function ranks(values) {
  const distinct = [...new Set(values)].sort((a, b) => a - b);
  return values.map((value) => (distinct.length < 2 ? 0.5 : distinct.indexOf(value) / (distinct.length - 1)));
}

function pushApart(placed, size) {
  let moved = false;
  for (let i = 0; i < placed.length; i += 1) {
    for (let j = i + 1; j < placed.length; j += 1)
      moved = separate(placed[i], placed[j], j - i, size) || moved;
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

/**
 * The list of groups after merging nodes into one. Groups that a chosen node belongs to are dissolved into the new one, and
 * the first of their labels is reused, else the first of `names` that isn't empty.
 */
export function mergeGroups(supernodes, ids, names = []) {
  const touched = supernodes.filter(([, ...members]) => members.some((id) => ids.includes(id)));
  const members = new Set([...touched.flatMap(([, ...group]) => group), ...ids]);
  const label =
    touched.map(([name]) => name).find((name) => name && name !== UNNAMED) ?? names.find(Boolean) ?? UNNAMED;
  return [...supernodes.filter((group) => !touched.includes(group)), Object.freeze([label, ...members])];
}

export function dissolveGroup(supernodes, number) {
  return supernodes.filter((_, i) => i !== number);
}

export function renameGroup(supernodes, number, label) {
  return supernodes.map((group, i) =>
    i === number ? Object.freeze([label.trim() || UNNAMED, ...group.slice(1)]) : group,
  );
}
