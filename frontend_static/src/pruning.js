/* Cuts a loaded graph down further by the methods' rule, as `graph/prune.py` does with raw graphs. Pure; it runs in the page and in a worker. */

import { topologicalRows } from "./pruning-rows.js";
import { leastKept } from "./pruning-threshold.js";

const ROW_SUM_FLOOR = 1e-10;
const TIE = 1e-6; // Python compares float32 sums; these are float64 over weights as the file has them.
const KINDS = Object.freeze({ feature: 0, error: 1, token: 2, logit: 3 });

/** What `createPruner` needs of a graph, as plain arrays that can be handed to a worker. */
export function pruningInput(graph) {
  const { source, target, weight } = graph.links;
  const influence = graph.nodes.map((node) => node.influence);
  return {
    source,
    target,
    weight,
    kinds: Uint8Array.from(graph.nodes, (node) => KINDS[kindToPrune(graph, node)]),
    targets: Float64Array.from(graph.nodes, (node) => node.asTarget),
    cumulative: influence.some((value) => value !== null)
      ? Float64Array.from(influence, (value) => value ?? Number.NaN)
      : null,
  };
}

/** Targets always stay. An output that isn't the root goes like a feature that leads nowhere. */
function kindToPrune(graph, { asTarget, kind }) {
  if (asTarget > 0) return "logit";
  return graph.root && kind === "logit" ? "feature" : kind;
}

/** Each node's influence on weighted `targets` over all links of a graph, and the two scores of `compute_graph_scores`. Throws on a cycle. */
export function explainedBy(graph, targets) {
  const { source, target, weight, kinds } = pruningInput(graph);
  const rows = topologicalRows(source, target, weight, kinds.length);
  const { influence } = flow(rows, targets, new Uint8Array(kinds.length).fill(1), null);
  return { influence, ...scoresOf(rows, kinds, targets, influence, new Uint8Array(kinds.length).fill(1), null) };
}

function scoresOf(rows, kinds, targets, influence, alive, keep) {
  const reach = influence.map((value, i) => value + targets[i]);
  const tokens = sumOf(influence, kinds, [KINDS.token]);
  const errors = sumOf(influence, kinds, [KINDS.error]);
  const lost = errorShares(rows, kinds, alive, keep);
  const reached = reach.reduce((sum, value) => sum + value, 0);
  const known = reach.reduce((sum, value, i) => sum + value * (1 - lost[i]), 0);
  return { replacement: share(tokens, tokens + errors), completeness: share(known, reached) };
}

/**
 * Prunes one graph, again and again. Throws if its links form a cycle.
 *
 * - `prune(nodeThreshold, edgeThreshold)`: `{kept, alive, point}` with a byte per link and per node.
 * - `point(nodeThreshold, edgeThreshold)`: `{nodes, links, replacement, completeness, explained}` of what is left. The first two scores are
 *   those of `compute_graph_scores` on the kept links alone; `explained` is the share of the file's influence that still reaches the tokens,
 *   whatever was cut counted as unexplained.
 *
 * Nodes are ranked by their cumulative influence in the file, or by that over the links where the file has none. Whether
 * two have the same influence is seen from the links.
 */
export function createPruner({ source, target, weight, kinds, targets, cumulative }) {
  const rows = topologicalRows(source, target, weight, kinds.length);
  const everything = new Uint8Array(kinds.length).fill(1);
  const whole = flow(rows, targets, everything, null);
  const total = sumOf(whole.influence, kinds, [KINDS.token, KINDS.error]);
  const ranks = cumulative ?? cumulativeShares(whole.influence, kinds);
  const lastRank = tiesTogether(ranks, whole.influence);
  let last = null;

  /** The edge scores among the nodes that a threshold leaves; kept while only the other threshold moves. */
  function scored(nodeThreshold) {
    const limit = lastRank(nodeThreshold);
    if (last?.limit === limit) return last;
    const mask = Uint8Array.from(kinds, (kind, i) =>
      kind === KINDS.token || kind === KINDS.logit || Number.isNaN(ranks[i]) || ranks[i] <= limit ? 1 : 0,
    );
    const { factor } = flow(rows, targets, mask, null);
    last = { limit, mask, scores: edgeScores(rows, mask, factor) };
    return last;
  }

  function cut(nodeThreshold, edgeThreshold) {
    const { mask, scores } = scored(nodeThreshold);
    const least = leastKept(scores, edgeThreshold);
    const keep = new Uint8Array(scores.length);
    for (let k = 0; k < keep.length; k += 1) keep[k] = scores[k] >= least ? 1 : 0;
    return { keep, alive: withoutDeadEnds(rows, kinds, keep, mask) };
  }

  function pointOf({ keep, alive }) {
    const { influence, explained } = flow(rows, targets, alive, keep);
    return {
      nodes: count(alive),
      links: count(keep),
      ...scoresOf(rows, kinds, targets, influence, alive, keep),
      explained: share(sumOf(explained, kinds, [KINDS.token]), total),
    };
  }

  return Object.freeze({
    point: (nodeThreshold, edgeThreshold) => pointOf(cut(nodeThreshold, edgeThreshold)),
    prune(nodeThreshold, edgeThreshold) {
      const found = cut(nodeThreshold, edgeThreshold);
      const kept = new Uint8Array(source.length);
      for (let k = 0; k < kept.length; k += 1) kept[rows.link[k]] = found.keep[k];
      return { kept, alive: found.alive, point: pointOf(found) };
    },
  });
}

/**
 * Influence over the rows, targets first: `{influence, explained, factor}`. Rows are scaled to sum to one over the kept links; for
 * `explained` over all links of the file. `factor` is what a link's absolute weight is multiplied by to give its score.
 */
function flow({ node, start, source, size, sums }, targets, mask, keep) {
  const influence = new Float64Array(mask.length);
  const explained = new Float64Array(mask.length);
  const factor = new Float64Array(mask.length);
  for (let row = 0; row < node.length; row += 1) {
    const t = node[row];
    if (!mask[t]) continue;
    const [from, to] = [start[row], start[row + 1]];
    let sum = 0;
    for (let k = from; k < to; k += 1) if (mask[source[k]] && (!keep || keep[k])) sum += size[k];
    factor[t] = (influence[t] + targets[t]) / Math.max(sum, ROW_SUM_FLOOR);
    const part = (explained[t] + targets[t]) / Math.max(sums[t], ROW_SUM_FLOOR);
    if (factor[t] === 0) continue;
    for (let k = from; k < to; k += 1) {
      if (!mask[source[k]] || (keep && !keep[k])) continue;
      influence[source[k]] += size[k] * factor[t];
      explained[source[k]] += size[k] * part;
    }
  }
  return { influence, explained, factor };
}

/** By threshold the rank of the node that crosses it, or of the last that has as much influence as that one. */
function tiesTogether(ranks, influence) {
  const order = [...ranks.keys()].filter((i) => !Number.isNaN(ranks[i])).sort((a, b) => ranks[a] - ranks[b] || a - b);
  return (threshold) => {
    let at = order.findIndex((i) => ranks[i] >= threshold);
    if (at < 0) return Infinity;
    const crossing = influence[order[at]];
    while (at + 1 < order.length && Math.abs(influence[order[at + 1]] - crossing) <= TIE * crossing) at += 1;
    return ranks[order[at]];
  };
}

function edgeScores({ node, start, source, size }, mask, factor) {
  const scores = new Float32Array(size.length);
  for (let row = 0; row < node.length; row += 1) {
    const each = factor[node[row]];
    if (each === 0) continue;
    for (let k = start[row]; k < start[row + 1]; k += 1) if (mask[source[k]]) scores[k] = size[k] * each;
  }
  return scores;
}

/** Features keep their place with a link on both sides, errors with one out; the links of the others are taken out of `keep`. */
function withoutDeadEnds({ node, start, source }, kinds, keep, mask) {
  let alive = mask;
  for (;;) {
    const [into, out] = [new Uint8Array(kinds.length), new Uint8Array(kinds.length)];
    for (let row = 0; row < node.length; row += 1) {
      for (let k = start[row]; k < start[row + 1]; k += 1) {
        if (!keep[k]) continue;
        into[node[row]] = 1;
        out[source[k]] = 1;
      }
    }
    const next = alive.map((byte, i) =>
      kinds[i] === KINDS.feature ? byte & into[i] & out[i] : kinds[i] === KINDS.error ? byte & out[i] : byte,
    );
    if (next.every((byte, i) => byte === alive[i])) return alive;
    alive = next;
    for (let row = 0; row < node.length; row += 1)
      for (let k = start[row]; k < start[row + 1]; k += 1) keep[k] &= alive[source[k]] & alive[node[row]];
  }
}

/** Per node, the share of its kept input that comes from errors. */
function errorShares({ node, start, source, size }, kinds, mask, keep) {
  const shares = new Float64Array(mask.length);
  for (let row = 0; row < node.length; row += 1) {
    let [sum, lost] = [0, 0];
    for (let k = start[row]; k < start[row + 1]; k += 1) {
      if ((keep && !keep[k]) || !mask[node[row]]) continue;
      sum += size[k];
      if (kinds[source[k]] === KINDS.error) lost += size[k];
    }
    shares[node[row]] = lost / Math.max(sum, ROW_SUM_FLOOR);
  }
  return shares;
}

/** For each node the share of all influence held by the nodes up to it, the most influential first; NaN for logits. */
export function cumulativeShares(influence, kinds) {
  const order = [...influence.keys()].filter((i) => kinds[i] !== KINDS.logit);
  order.sort((a, b) => influence[b] - influence[a] || a - b);
  const total = order.reduce((sum, i) => sum + influence[i], 0);
  const shares = new Float64Array(influence.length).fill(Number.NaN);
  let sum = 0;
  for (const i of order) {
    sum += influence[i];
    shares[i] = total > 0 ? sum / total : 1;
  }
  return shares;
}

function sumOf(values, kinds, wanted) {
  return values.reduce((sum, value, i) => sum + (wanted.includes(kinds[i]) ? value : 0), 0);
}

function count(bytes) {
  return bytes.reduce((sum, byte) => sum + byte, 0);
}

function share(part, whole) {
  return whole > 0 ? part / whole : 0;
}
