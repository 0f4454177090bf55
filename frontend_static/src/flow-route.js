/* The lines between boxes of the subgraph: without loops, and around unrelated boxes. Pure. */

import { BOX } from "./subgraph-layout.js";

const SAMPLES = 12;
const MARGIN = 4;
const DETOURS = [0, 0.7, -0.7, 1.2, -1.2, 1.9, -1.9, 2.8, -2.8];
const PORTS = Object.freeze({ spread: 0.38, step: 12 });
const MOST_CHECKS = 60_000;

/**
 * The line of every flow `{from, to}`: `{d, middle}`, the text of an SVG path and a point halfway. `routes` has the points, by the flow's number, of those
 * that the layout led; the others go straight, or by the side where they cross the fewest boxes.
 */
export function flowLines(flows, places, routes = new Map()) {
  const free = flows.length * places.length <= MOST_CHECKS;
  const ports = portsOf(flows, places, routes);
  return flows.map((flow, i) => {
    const [a, b] = [places[flow.from], places[flow.to]];
    const [start, end] = ports[i];
    if (routes.has(i)) return spline([start, ...routes.get(i), end]);
    if (Math.abs(a.y - b.y) < BOX.height) return arc(a, b);
    const others = free ? places.filter((_, k) => k !== flow.from && k !== flow.to) : [];
    return lineThrough(around(start, end, others));
  });
}

/** Where flows leave and arrive: along the upper and lower edges, in the order of where they lead. */
function portsOf(flows, places, routes) {
  const sides = new Map();
  const ends = flows.map(({ from, to }, i) => {
    const up = places[to].y < places[from].y;
    const turns = routes.get(i) ?? [];
    const heading = [turns[0]?.x ?? places[to].x, turns.at(-1)?.x ?? places[from].x];
    return [from, to].map((box, k) => {
      const side = `${box} ${up === (k === 0) ? "top" : "bottom"}`;
      if (!sides.has(side)) sides.set(side, []);
      const end = { x: places[box].x, y: places[box].y + (up === (k === 0) ? -1 : 1) * (BOX.height / 2), heading: heading[k] };
      sides.get(side).push(end);
      return end;
    });
  });
  for (const list of sides.values()) {
    list.sort((a, b) => a.heading - b.heading);
    const step = Math.min(PORTS.step, (2 * PORTS.spread * BOX.width) / Math.max(1, list.length - 1));
    list.forEach((end, k) => (end.x += (k - (list.length - 1) / 2) * step));
  }
  return ends;
}

/** Smooth through the points, upright at each, so that it never turns back. */
function lineThrough(points) {
  const [start, ...rest] = points;
  let [d, before] = [`M${round(start.x)},${round(start.y)}`, start];
  for (const point of rest) {
    const half = (before.y + point.y) / 2;
    d += ` C${round(before.x)},${round(half)} ${round(point.x)},${round(half)} ${round(point.x)},${round(point.y)}`;
    before = point;
  }
  const at = Math.floor((points.length - 1) / 2);
  const [a, b] = [points[at], points[at + 1]];
  const middle = points.length % 2 ? a : { x: (a.x + b.x) / 2, y: (a.y + b.y) / 2 };
  return { d, middle: { x: middle.x, y: middle.y } };
}

/** A cubic B-spline: smooth, from the first point to the last, and never out of what the points enclose. */
function spline(points) {
  const [start, end] = [points[0], points.at(-1)];
  const lift = { x: start.x, y: start.y + (points[1].y - start.y) * 0.5 };
  const land = { x: end.x, y: end.y + (points.at(-2).y - end.y) * 0.5 };
  const all = [start, start, lift, ...points.slice(1, -1), land, end, end];
  const at = (k, weights) => weights.reduce((sum, w, j) => ({ x: sum.x + w * all[k + j].x, y: sum.y + w * all[k + j].y }), { x: 0, y: 0 });
  const text = ({ x, y }) => `${round(x)},${round(y)}`;
  let d = `M${text(start)} L${text(at(0, [1 / 6, 4 / 6, 1 / 6]))}`;
  for (let k = 1; k + 2 < all.length; k += 1)
    d += ` C${text(at(k, [2 / 3, 1 / 3]))} ${text(at(k, [1 / 3, 2 / 3]))} ${text(at(k, [1 / 6, 4 / 6, 1 / 6]))}`;
  const middle = points[Math.floor(points.length / 2)];
  return { d: `${d} L${text(end)}`, middle: { x: middle.x, y: middle.y } };
}

/** Between adjacent boxes: over the tops. */
function arc(a, b) {
  const [from, to] = [a.y - BOX.height / 2, b.y - BOX.height / 2];
  const high = Math.min(from, to) - Math.min(34, 14 + Math.abs(a.x - b.x) * 0.05);
  const d = `M${round(a.x)},${round(from)} C${round(a.x)},${round(high)} ${round(b.x)},${round(high)} ${round(b.x)},${round(to)}`;
  return { d, middle: { x: (a.x + b.x) / 2, y: 0.25 * ((from + to) / 2) + 0.75 * high } };
}

function around(start, end, others) {
  let best = null;
  for (const aside of DETOURS) {
    const turn = { x: (start.x + end.x) / 2 + aside * BOX.width, y: (start.y + end.y) / 2 };
    const points = aside === 0 ? [start, end] : [start, turn, end];
    const crossed = crossings(points, others);
    if (best === null || crossed < best.crossed) best = { points, crossed };
    if (crossed === 0) break;
  }
  return best.points;
}

/** How many points of the line lie in other boxes. */
function crossings(points, others) {
  const [reachX, reachY] = [BOX.width / 2 + MARGIN, BOX.height / 2 + MARGIN];
  let count = 0;
  for (let part = 1; part < points.length; part += 1)
    for (let i = 1; i < SAMPLES; i += 1) {
      const [a, b, t] = [points[part - 1], points[part], i / SAMPLES];
      const [x, y] = [a.x + (b.x - a.x) * (3 * t * t - 2 * t * t * t), a.y + (b.y - a.y) * (1.5 * t * (1 - t) + t * t * t)];
      if (others.some((other) => Math.abs(x - other.x) < reachX && Math.abs(y - other.y) < reachY)) count += 1;
    }
  return count;
}

const round = (value) => Math.round(value * 10) / 10;
