/* Where the boxes of the subgraph stand: layers from bottom to top, tokens from left to right, few crossings. Rows are ours, the rest is dagre's. Pure. */

import { Graph, layout } from "../vendor/dagre.js";
import { clamp } from "./scales.js";

/** A box in the drawing's own pixels, whatever the zoom. */
export const BOX = Object.freeze({ width: 132, height: 52, gap: 20, rise: 40 });
/** Weaker flows are neither drawn nor laid out by. */
export const FAINT = 0.003;
const ZOOMS = [1, 0.85, 0.72, 0.62, 0.53, 0.45, 0.38, 0.32, 0.26, 0.2, 0.14, 0.1];
const USUAL = Object.freeze({ width: 900, height: 560 });
/** What a row may cost: a strong flow inside it, another layer in it, a layer cut in two; and what a smaller picture does. */
const COST = Object.freeze({ inside: 14, mixed: 0.12, cut: 0.15, small: 4, row: 0.02 });
const MARGIN = 16;
/** Flows up to this strength may run inside a row. */
const MINOR = 0.04;
/** Flows over more rows are led around boxes afterwards: as part of the layout they would take more room than the boxes. */
const longest = (count) => (count <= 24 ? 3 : 1);

/**
 * Places for `boxes` as `makeBoxes` gives them, with `flows` (`[{from, to, weight}]`, strongest first) between them.
 *
 * `positions` are places that a person gave, [x, y] from 0 to 1 by key, of a drawing whose size is `frame`; without one they come from a file
 * that has none. `panel` is the size of what shows the drawing: rows are as long as suits its shape.
 *
 * Returns `{places, routes, frames, width, height}`: centres by box, the points of laid-out flows by their number, and the rectangles around
 * the members of each expanded supernode.
 */
export function layOut(boxes, flows, { positions = {}, frame = null, panel = USUAL } = {}) {
  const given = boxes.map(({ key }) => positions[key] ?? null);
  if (given.every((place) => place === null)) return drawn(boxes, automatic(boxes, flows, panel));
  const size = frame ?? oldFrame(given.filter(Boolean));
  const places = given.map((unit) => unit && fromUnit(unit, size, frame === null));
  if (places.some((place) => place === null)) fillIn(boxes, flows, places);
  return drawn(boxes, { places, routes: new Map() });
}

/** The numbers of the flows to draw where all would be a thicket: the strongest, and each box's strongest in and out. */
export function mainFlows(flows, count) {
  const most = Math.max(24, Math.round(1.6 * count));
  const [kept, seenIn, seenOut] = [new Set(), new Map(), new Map()];
  flows.forEach(({ from, to, weight }, i) => {
    if (Math.abs(weight) < FAINT) return;
    const firsts = (seenIn.get(to) ?? 0) < 1 || (seenOut.get(from) ?? 0) < 1;
    if (i < most || firsts) kept.add(i);
    seenIn.set(to, (seenIn.get(to) ?? 0) + 1);
    seenOut.set(from, (seenOut.get(from) ?? 0) + 1);
  });
  return kept;
}

/** Places as [x, y] from 0 to 1 of the smallest frame that holds them, and that frame: what a file keeps. */
export function toUnits(boxes, places) {
  const { left, top, width, height } = bounds(places);
  const unit = ({ x, y }) => [(x - left) / width, (y - top) / height];
  return { frame: [Math.round(width), Math.round(height)], positions: Object.fromEntries(boxes.map(({ key }, i) => [key, unit(places[i])])) };
}

function bounds(places) {
  const [xs, ys] = [places.map(({ x }) => x), places.map(({ y }) => y)];
  const [left, top] = [Math.min(...xs) - BOX.width / 2 - MARGIN, Math.min(...ys) - BOX.height / 2 - MARGIN];
  return {
    left,
    top,
    width: Math.max(...xs) + BOX.width / 2 + MARGIN - left,
    height: Math.max(...ys) + BOX.height / 2 + MARGIN - top,
  };
}

/** Everything moved so that the drawing begins at 0, with the frames of expanded supernodes. */
function drawn(boxes, { places, routes }) {
  if (places.length === 0) return { places, routes, frames: [], width: 1, height: 1 };
  const frames = framesOf(boxes, places);
  const corners = frames.flatMap(({ x, y, width, height }) => [
    { x: x + BOX.width / 2, y: y + BOX.height / 2 },
    { x: x + width - BOX.width / 2, y: y + height - BOX.height / 2 },
  ]);
  const turns = [...routes.values()].flat().map(({ x, y }) => ({ x: clamp(x, -1e6, 1e6), y }));
  const spread = bounds([...places, ...corners]);
  const left = Math.min(spread.left, ...turns.map(({ x }) => x - MARGIN));
  const right = Math.max(spread.left + spread.width, ...turns.map(({ x }) => x + MARGIN));
  const move = ({ x, y, ...rest }) => ({ ...rest, x: x - left, y: y - spread.top });
  return {
    places: places.map(move),
    routes: new Map([...routes].map(([k, points]) => [k, points.map(move)])),
    frames: frames.map(move),
    width: right - left,
    height: spread.height,
  };
}

function framesOf(boxes, places) {
  const groups = new Map();
  boxes.forEach(({ frame }, i) => {
    if (frame !== undefined) groups.set(frame, [...(groups.get(frame) ?? []), places[i]]);
  });
  const room = { side: 10, top: 20 };
  return [...groups].map(([group, members]) => {
    const [xs, ys] = [members.map(({ x }) => x), members.map(({ y }) => y)];
    const [x, y] = [Math.min(...xs) - BOX.width / 2 - room.side, Math.min(...ys) - BOX.height / 2 - room.top];
    return {
      group,
      x,
      y,
      width: Math.max(...xs) + BOX.width / 2 + room.side - x,
      height: Math.max(...ys) + BOX.height / 2 + room.side - y,
    };
  });
}

/** dagre with rows that are given: it orders them, spaces them and leads flows past boxes. */
function automatic(boxes, flows, panel) {
  const rows = assignRows(boxes, flows, panel);
  const graph = new Graph({ compound: true });
  graph.setGraph({ rankdir: "BT", nodesep: BOX.gap, edgesep: 8, ranksep: BOX.rise, ranker: rankBy(rows) });
  graph.setDefaultEdgeLabel(() => ({}));
  const upwards = boxes.map((_, i) => i).sort((a, b) => rows[a] - rows[b] || byToken(boxes[a], boxes[b]) || a - b);
  for (const i of upwards) {
    graph.setNode(String(i), { width: BOX.width, height: BOX.height });
    const { frame } = boxes[i];
    if (frame === undefined) continue;
    graph.setNode(`frame ${frame}`, {});
    graph.setParent(String(i), `frame ${frame}`);
  }
  const main = mainFlows(flows, boxes.length);
  for (const i of main) {
    const { from, to, weight } = flows[i];
    const [low, high] = rows[from] < rows[to] ? [from, to] : [to, from];
    if (rows[low] === rows[high] || rows[high] - rows[low] > longest(boxes.length)) continue;
    const before = graph.edge(String(low), String(high));
    const share = 1 + Math.round(8 * Math.min(1, Math.abs(weight)));
    graph.setEdge(String(low), String(high), { weight: (before?.weight ?? 0) + share, flow: before?.flow ?? i, labelpos: "c" });
  }
  layout(graph, { customOrder: tokenOrder(boxes) });
  const places = boxes.map((_, i) => ({ x: graph.node(String(i)).x, y: graph.node(String(i)).y }));
  const routes = new Map(
    graph.edges().map((edge) => {
      const { flow, points } = graph.edge(edge);
      const turns = points.slice(1, -1);
      return [flow, String(flows[flow].from) === edge.v ? turns : turns.reverse()];
    }),
  );
  return tightened(boxes, rows, { places, routes }, panel);
}

/**
 * A drawing that is much wider than suits the panel, its rows being shifted against each other, in less width: each row keeps its order, and its
 * boxes come as near to where they were as there is room. Flows are led anew then.
 */
function tightened(boxes, rows, laid, panel) {
  const xs = laid.places.map(({ x }) => x);
  const [left, right] = [Math.min(...xs), Math.max(...xs)];
  const pitch = BOX.width + BOX.gap;
  const byRow = Array.from({ length: Math.max(...rows) + 1 }, () => []);
  rows.forEach((row, i) => byRow[row].push(i));
  const fullest = Math.max(...byRow.map((row) => row.length));
  const height = byRow.length * (BOX.height + BOX.rise);
  const wanted = Math.max((fullest - 1) * pitch, (height * panel.width) / panel.height - pitch);
  if (right - left <= 1.1 * wanted || boxes.some(({ frame }) => frame !== undefined)) return laid;
  const places = [...laid.places];
  for (const row of byRow) {
    row.sort((a, b) => xs[a] - xs[b]);
    const wish = row.map((i) => ((xs[i] - left) / (right - left)) * wanted);
    spread(wish, pitch, wanted).forEach((x, k) => (places[row[k]] = { ...places[row[k]], x }));
  }
  return { places, routes: new Map() };
}

/** The places from 0 to `width`, at least `pitch` apart, that are nearest to the wishes: those that are too near share a block around their mean. */
function spread(wishes, pitch, width) {
  const blocks = [];
  wishes.forEach((wish, i) => {
    let block = { from: i, count: 1, sum: wish - i * pitch };
    while (blocks.length > 0 && blocks.at(-1).sum / blocks.at(-1).count >= block.sum / block.count) {
      const before = blocks.pop();
      block = { from: before.from, count: before.count + block.count, sum: before.sum + block.sum };
    }
    blocks.push(block);
  });
  const most = width - (wishes.length - 1) * pitch;
  return blocks.flatMap(({ from, count, sum }) => {
    const start = clamp(sum / count, 0, Math.max(0, most));
    return Array.from({ length: count }, (_, k) => start + (from + k) * pitch);
  });
}

/** Ranks for dagre: what it has added for frames goes just below and above what is in them. */
function rankBy(rows) {
  return (graph) => {
    const step = 2 * (graph.graph().nodeRankFactor ?? 1);
    const given = (v) => rows[Number(v)];
    for (const v of graph.nodes()) graph.node(v).rank = given(v) === undefined ? -step : given(v) * step;
    for (const v of graph.nodes()) {
      if (graph.node(v).dummy !== "border") continue;
      const ranks = (ids) => ids.filter((id) => given(id) !== undefined).map((id) => given(id) * step);
      const [above, below] = [ranks(graph.successors(v)), ranks(graph.predecessors(v))];
      graph.node(v).rank = above.length > 0 ? Math.min(...above) - 1 : Math.max(...below) + 1;
    }
  };
}

const byToken = (a, b) => a.position - b.position;

/** dagre's order, in which the boxes of each row then change places so that earlier tokens stand left of later ones. */
function tokenOrder(boxes) {
  return (graph, order) => {
    order(graph);
    const rows = new Map();
    for (const v of graph.nodes()) {
      const node = graph.node(v);
      if (boxes[v] && boxes[v].frame === undefined) rows.set(node.rank, [...(rows.get(node.rank) ?? []), { node, box: boxes[v], at: node.order }]);
    }
    for (const row of rows.values()) {
      const slots = row.map(({ at }) => at).sort((a, b) => a - b);
      row.sort((a, b) => byToken(a.box, b.box) || a.at - b.at).forEach(({ node }, k) => (node.order = slots[k]));
    }
  };
}

/**
 * The row of every box, 0 at the bottom. Rows follow the order of layers; neighbouring layers share one, and a full layer takes several, so that
 * the drawing suits the panel's shape, while what flows into each other stands in different rows.
 */
export function assignRows(boxes, flows, panel = USUAL) {
  const order = boxes.map((_, i) => i).sort((a, b) => boxes[a].layer - boxes[b].layer || byToken(boxes[a], boxes[b]) || a - b);
  const rank = new Array(boxes.length);
  order.forEach((box, at) => (rank[box] = at));
  const within = innerFlows(flows, rank, boxes.length);
  let best = null;
  for (const zoom of ZOOMS) {
    const columns = Math.max(1, Math.floor((panel.width / zoom - 2 * MARGIN) / (BOX.width + BOX.gap)));
    const most = Math.max(1, Math.floor((panel.height / zoom - 2 * MARGIN + BOX.rise) / (BOX.height + BOX.rise)));
    const found = cutRows(order, boxes, within, columns, most);
    if (found === null) continue;
    const cost = found.cost + COST.small * (1 / zoom - 1);
    if (best === null || cost < best.cost) best = { cost, cuts: found.cuts };
  }
  const cuts = best?.cuts ?? order.map((_, at) => at);
  const rows = new Array(boxes.length);
  order.forEach((box, at) => (rows[box] = cuts.findLastIndex((begin) => begin <= at)));
  return rows;
}

/** Sums of the flows between boxes that stand at `a` to `b` of the order: a table of prefix sums. */
function innerFlows(flows, rank, count) {
  const sums = Array.from({ length: count + 1 }, () => new Float64Array(count + 1));
  for (const { from, to, weight } of flows) {
    const [low, high] = [Math.min(rank[from], rank[to]), Math.max(rank[from], rank[to])];
    sums[low + 1][high + 1] += Math.max(0, Math.min(1, Math.abs(weight)) - MINOR);
  }
  for (let i = 1; i <= count; i += 1)
    for (let j = 1; j <= count; j += 1) sums[i][j] += sums[i - 1][j] + sums[i][j - 1] - sums[i - 1][j - 1];
  return (a, b) => sums[b][b] - sums[a][b] - sums[b][a] + sums[a][a];
}

/** The cheapest way to cut the order into at most `most` rows of at most `columns` boxes: where rows begin, or null if there is none. */
function cutRows(order, boxes, within, columns, most) {
  const count = order.length;
  if (columns * most < count) return null;
  const layers = order.map((box) => boxes[box].layer);
  const distinct = [0];
  layers.forEach((layer, i) => distinct.push(distinct[i] + (i === 0 || layer !== layers[i - 1] ? 1 : 0)));
  let row = new Float64Array(count + 1).fill(Infinity);
  row[0] = 0;
  const steps = [];
  let best = { cost: Infinity, rows: 0 };
  for (let used = 1; used <= Math.min(most, count); used += 1) {
    const next = new Float64Array(count + 1).fill(Infinity);
    const from = new Int32Array(count + 1).fill(-1);
    for (let end = used; end <= count; end += 1)
      for (let begin = Math.max(used - 1, end - columns); begin < end; begin += 1) {
        if (row[begin] === Infinity) continue;
        const cut = begin > 0 && layers[begin] === layers[begin - 1] ? COST.cut : 0;
        const mixed = distinct[end] - distinct[begin + 1];
        const cost = row[begin] + COST.row + cut + COST.mixed * mixed + COST.inside * within(begin, end);
        if (cost < next[end]) [next[end], from[end]] = [cost, begin];
      }
    steps.push(from);
    row = next;
    if (next[count] < best.cost) best = { cost: next[count], rows: used };
  }
  if (best.cost === Infinity) return null;
  const cuts = [];
  for (let at = count, used = best.rows; used > 0; used -= 1) cuts.unshift((at = steps[used - 1][at]));
  return { cost: best.cost, cuts };
}

/** The size of a drawing whose file doesn't tell it: as large as it needs to be for boxes not to overlap, within reason. */
function oldFrame(units) {
  const needed = units.length * (BOX.width + BOX.gap) * (BOX.height + BOX.gap) * 1.7;
  const grown = Math.max(1, Math.sqrt(needed / (1000 * 600)));
  for (let factor = grown; factor < 3 * grown; factor *= 1.15) {
    const size = [1000 * factor, 600 * factor];
    if (!overlapping(units.map((unit) => fromUnit(unit, size, true)))) return size;
  }
  return [1000 * grown, 600 * grown];
}

/** Files without a size give the centres between the outermost places, others of the whole frame. */
function fromUnit([u, v], [width, height], outermost) {
  if (!outermost) return { x: u * width, y: v * height };
  const [x, y] = [BOX.width / 2 + 8, BOX.height / 2 + 8];
  return { x: x + u * Math.max(1, width - 2 * x), y: y + v * Math.max(1, height - 2 * y) };
}

function overlapping(places) {
  return places.some((a, i) => places.some((b, j) => j > i && meet(a, b, 0)));
}

function meet(a, b, room) {
  return Math.abs(a.x - b.x) < BOX.width + room && Math.abs(a.y - b.y) < BOX.height + room;
}

/** Boxes without a place get the free one nearest to where the automatic layout would have them among the others. */
function fillIn(boxes, flows, places) {
  const { places: wished } = automatic(boxes, flows, USUAL);
  const known = places.flatMap((place, i) => (place ? [{ x: place.x - wished[i].x, y: place.y - wished[i].y }] : []));
  const mean = (axis) => known.reduce((sum, shift) => sum + shift[axis], 0) / known.length;
  const [dx, dy] = [mean("x"), mean("y")];
  places.forEach((place, i) => {
    if (place === null) places[i] = nearestFree({ x: wished[i].x + dx, y: wished[i].y + dy }, places.filter(Boolean));
  });
}

function nearestFree(wish, taken) {
  for (let ring = 0; ring < 200; ring += 1) {
    const spots = ring === 0 ? [wish] : Array.from({ length: 8 * ring }, (_, k) => {
      const angle = (2 * Math.PI * k) / (8 * ring);
      return { x: wish.x + Math.cos(angle) * ring * 24, y: wish.y + Math.sin(angle) * ring * 20 };
    });
    const free = spots.find((spot) => taken.every((other) => !meet(spot, other, 12)));
    if (free) return free;
  }
  return wish;
}
