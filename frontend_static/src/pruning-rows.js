/* The links of a graph as rows of absolute weights, one per target, the last targets first: one pass in that order follows every path. Pure. */

import { bucket } from "./links.js";

/**
 * `{node, start, source, size, link, sums}`: row r holds the links into `node[r]` at `start[r]` to `start[r + 1]`, with their sources, absolute
 * weights and numbers; no row reads a node whose own row came before. `sums` are each node's absolute inputs. Throws on a cycle.
 */
export function topologicalRows(source, target, weight, nodeCount) {
  const [byTarget, first] = bucket(Uint32Array.from(target.keys()), target, nodeCount);
  const order = outputsFirst(source, byTarget, first, nodeCount);
  const node = order.filter((i) => first[i + 1] > first[i]);
  const rows = {
    node,
    start: new Uint32Array(node.length + 1),
    source: new Uint32Array(source.length),
    size: new Float64Array(source.length),
    link: new Uint32Array(source.length),
    sums: new Float64Array(nodeCount),
  };
  let at = 0;
  node.forEach((t, row) => {
    rows.start[row] = at;
    for (let i = first[t]; i < first[t + 1]; i += 1, at += 1) {
      const k = byTarget[i];
      rows.source[at] = source[k];
      rows.size[at] = Math.abs(weight[k]);
      rows.link[at] = k;
      rows.sums[t] += rows.size[at];
    }
  });
  rows.start[node.length] = at;
  return rows;
}

/** Every node after all that it feeds. */
function outputsFirst(source, byTarget, first, nodeCount) {
  const waiting = new Uint32Array(nodeCount);
  for (let k = 0; k < source.length; k += 1) waiting[source[k]] += 1;
  const order = new Uint32Array(nodeCount);
  let found = 0;
  for (let i = 0; i < nodeCount; i += 1) {
    if (waiting[i] > 0) continue;
    order[found] = i;
    found += 1;
  }
  for (let done = 0; done < found; done += 1) {
    const t = order[done];
    for (let i = first[t]; i < first[t + 1]; i += 1) {
      const s = source[byTarget[i]];
      waiting[s] -= 1;
      if (waiting[s] > 0) continue;
      order[found] = s;
      found += 1;
    }
  }
  if (found < nodeCount) throw new Error("The links of this graph form a cycle, so their influence can't be computed.");
  return order;
}
