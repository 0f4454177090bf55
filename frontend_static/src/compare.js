/* Graphs made of other graphs: two compared, or many merged. Which nodes a choice hides, and what is told about them. Pure. */

import { fileGraph } from "./graph.js";

/** The parts of a comparison that can be shown alone. */
export const SIDES = Object.freeze(["all", "a", "both", "b"]);

/** What a file says of the two graphs that it compares; null for another file. */
export function comparison(graph) {
  const found = graph?.metadata.diff;
  return found && found.a && found.b ? found : null;
}

/** What a file says of the graphs that it was merged from, `{n, level, members, …}`; null for another file. */
export function merging(graph) {
  const found = graph?.metadata.merged;
  return found && Number.isInteger(found.n) && found.n > 0 ? found : null;
}

/** Bytes of the nodes that are hidden because too few graphs have them, or another one; null where nothing is. */
export function setAside(graph, least, side) {
  const base = fileGraph(graph);
  const rare = merging(base) && least > 0 ? ({ merged }) => merged !== null && merged.frequency < least - 1e-9 : null;
  const other = comparison(base) && side !== "all" ? ({ diff }) => diff !== null && diff.side !== side : null;
  const hides = rare ?? other;
  return hides ? Uint8Array.from(base.nodes, (node) => (hides(node) ? 1 : 0)) : null;
}

/** How many nodes each side has. */
export function sideCounts(graph) {
  const counts = { all: 0, a: 0, both: 0, b: 0 };
  for (const { diff } of fileGraph(graph).nodes) {
    if (!diff) continue;
    counts.all += 1;
    counts[diff.side] += 1;
  }
  return counts;
}

/** The features whose share of the influence differs most, the largest difference first; those within noise last. */
export function largestMoves(graph) {
  const moved = ({ diff }) => Math.abs(diff.shareB - diff.shareA);
  return fileGraph(graph)
    .nodes.filter((node) => node.kind === "feature" && node.diff && moved(node) > 0)
    .sort((one, other) => one.diff.noise - other.diff.noise || moved(other) - moved(one) || one.index - other.index);
}

/** The nodes of a merged graph, those of most graphs first, then those of the largest share. */
export function mostFrequent(graph, visible) {
  return fileGraph(graph)
    .nodes.filter((node) => node.merged && visible[node.index])
    .sort((one, other) => other.merged.frequency - one.merged.frequency || (other.merged.share ?? 0) - (one.merged.share ?? 0) || one.index - other.index);
}

/** Slots whose tokens differ, `[slot, a, b]`; null is no token. */
export function differentSlots({ slots = [] }) {
  return slots.flatMap(([a, b], slot) => (a === b ? [] : [[slot, a, b]]));
}

/** Graphs of the folder that the one that is shown can be compared with: of single prompts, those of the same set first. */
export function partners(graphs, slug, scan) {
  const single = graphs.filter((one) => one.slug !== slug && !one.diff && !one.merged);
  const alike = (one) => (one.scan === scan ? 0 : 1);
  return single.toSorted((one, other) => alike(one) - alike(other));
}
