/* What pruning leaves of a graph: which nodes are seen, and the graph with the kept links alone in its indexes. Pure. */

import { graphWithLinks } from "./graph.js";
import { bucket } from "./links.js";

/**
 * Which nodes are shown, as one byte per node: those of `alive` (null for all that lead to the graph's root), without those `aside` and
 * the hidden, with the pinned. A node that isn't in the
 * file, such as a difference of outputs, always is.
 */
export function visibleNodes(graph, alive, pinned = [], hidden = [], aside = null) {
  const visible = new Uint8Array(graph.nodes.length).fill(1);
  (alive ?? graph.inside)?.forEach((byte, index) => {
    visible[index] = byte;
  });
  aside?.forEach((byte, index) => {
    if (byte) visible[index] = 0;
  });
  for (const id of hidden) if (graph.index(id) >= 0) visible[graph.index(id)] = 0;
  for (const id of pinned) if (graph.index(id) >= 0) visible[graph.index(id)] = 1;
  return visible;
}

/** What the store holds of a graph before anything is pruned. */
export function unpruned(graph, pinned, hidden) {
  return { visible: visibleNodes(graph, null, pinned, hidden), pruned: graph, left: null };
}

/**
 * The graph whose `inputs`, `outputs` and `links.strongest` hold the links of `kept` alone (null for all); numbers, weights and shares are those
 * of the file. A pinned node that was pruned away keeps its links with what is shown; where nodes are set `aside`, links of nodes that aren't shown are left out.
 */
export function prunedGraph(graph, { kept, alive }, visible, pinned = [], aside = null) {
  if (kept === null && aside === null) return graph;
  const { source, target } = graph.links;
  const bytes = kept === null ? new Uint8Array(source.length).fill(1) : (graph.keptToo?.(kept) ?? kept.slice());
  if (aside) for (let k = 0; k < bytes.length; k += 1) if (!visible[source[k]] || !visible[target[k]]) bytes[k] = 0;
  if (kept === null) return withLinks(graph, bytes);
  for (const index of pinned.map(graph.index)) {
    if (index < 0 || index >= alive.length || alive[index]) continue;
    for (const k of graph.inputs(index)) if (visible[graph.links.source[k]]) bytes[k] = 1;
    for (const k of graph.outputs(index)) if (visible[graph.links.target[k]]) bytes[k] = 1;
  }
  return withLinks(graph, bytes);
}

/** The graph with the links of `bytes` alone in its indexes: one pass over all links, and the rest over those that are left. */
export function withLinks(graph, bytes) {
  const { links } = graph;
  const found = new Uint32Array(links.strongest.length);
  let count = 0;
  for (let i = 0; i < found.length; i += 1) {
    const k = links.strongest[i];
    found[count] = k;
    count += bytes[k];
  }
  const strongest = found.slice(0, count);
  const [byTarget, targetStart] = bucket(strongest, links.target, graph.nodes.length);
  const [bySource, sourceStart] = bucket(strongest, links.source, graph.nodes.length);
  return graphWithLinks(graph, { ...links, count, strongest, byTarget, targetStart, bySource, sourceStart });
}
