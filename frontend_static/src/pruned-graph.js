/* What pruning leaves of a graph: which nodes are seen, and the graph with the kept links alone in its indexes. Pure. */

import { graphWithLinks } from "./graph.js";

/**
 * Which nodes are shown, as one byte per node: those of `alive` (null for all), without the hidden, with the pinned. A node that isn't in the
 * file, such as a difference of outputs, always is.
 */
export function visibleNodes(graph, alive, pinned = [], hidden = []) {
  const visible = new Uint8Array(graph.nodes.length).fill(1);
  alive?.forEach((byte, index) => {
    visible[index] = byte;
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
 * of the file. A pinned node that was pruned away keeps its links with what is shown.
 */
export function prunedGraph(graph, { kept, alive }, visible, pinned = []) {
  if (kept === null) return graph;
  const bytes = graph.keptToo?.(kept) ?? kept.slice();
  for (const index of pinned.map(graph.index)) {
    if (index < 0 || index >= alive.length || alive[index]) continue;
    for (const k of graph.inputs(index)) if (visible[graph.links.source[k]]) bytes[k] = 1;
    for (const k of graph.outputs(index)) if (visible[graph.links.target[k]]) bytes[k] = 1;
  }
  return withLinks(graph, bytes);
}

function withLinks(graph, bytes) {
  const { links } = graph;
  const strongest = links.strongest.filter((k) => bytes[k]);
  const [byTarget, targetStart] = filtered(links.byTarget, links.targetStart, bytes);
  const [bySource, sourceStart] = filtered(links.bySource, links.sourceStart, bytes);
  return graphWithLinks(graph, { ...links, count: strongest.length, strongest, byTarget, targetStart, bySource, sourceStart });
}

function filtered(order, start, bytes) {
  const kept = new Uint32Array(order.length);
  const starts = new Uint32Array(start.length);
  let at = 0;
  for (let node = 0; node + 1 < start.length; node += 1) {
    for (let i = start[node]; i < start[node + 1]; i += 1) {
      if (!bytes[order[i]]) continue;
      kept[at] = order[i];
      at += 1;
    }
    starts[node + 1] = at;
  }
  return [kept.subarray(0, at), starts];
}
