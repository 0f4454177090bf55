/* A graph with one of its own nodes explained in place of its outputs, as `--from` does on the command line. Pure. */

import { unpruned, withLinks } from "./pruned-graph.js";
import { cumulativeShares, explainedBy } from "./pruning.js";
import { fileGraph } from "./graph.js";
import { ownShares } from "./influence.js";

/** The graph as its file has it, without another root and without a difference of outputs. */
export function unrooted(graph) {
  return fileGraph(graph)?.file ?? fileGraph(graph);
}

/** Whether there is something to explain a node by. */
export function canExplain(graph, node) {
  return Boolean(node) && !node.difference && ["feature", "logit"].includes(node.kind) && unrooted(graph).inputs(node.index).length > 0;
}

/**
 * The graph of a file with another root: the same nodes and link numbers, but only links that lead there, and influence on that
 * node. `root` is its id, `inside` has a byte for each node that leads there and for the tokens, which always stay.
 * Null for a node that can't be explained; throws on a cycle.
 */
export function rootedGraph(file, id) {
  const root = file.index(id);
  if (!canExplain(file, file.nodes[root])) return null;
  const targets = Float64Array.from(file.nodes, ({ index }) => (index === root ? 1 : 0));
  const { influence, replacement, completeness } = explainedBy(file, targets);
  const inside = Uint8Array.from(file.nodes, ({ index, kind }) => (influence[index] > 0 || index === root || kind === "token" ? 1 : 0));
  const { source, target } = file.links;
  const bytes = Uint8Array.from(source, (from, k) => inside[from] & (influence[target[k]] > 0 || target[k] === root ? 1 : 0));
  const metadata = { ...file.metadata, root: id, replacement_score: replacement, completeness_score: completeness };
  const nodes = rankedNodes(file.nodes, influence, root);
  return Object.freeze({ ...withLinks(file, bytes), nodes, metadata, file, root: id, inside, node: (wanted) => nodes[file.index(wanted)] ?? null });
}

/** The nodes with the rank of their influence on the root in place of that on the outputs. */
function rankedNodes(nodes, influence, root) {
  const ranks = cumulativeShares(influence.map(Math.fround), new Uint8Array(nodes.length));
  const cumulative = nodes.map(({ index }) => (influence[index] > 0 ? ranks[index] : null));
  const own = ownShares(cumulative);
  return Object.freeze(
    nodes.map((node) =>
      Object.freeze({
        ...node,
        asTarget: node.index === root ? 1 : 0,
        influence: cumulative[node.index],
        ownInfluence: own[node.index]?.share ?? null,
        influenceAtMost: own[node.index]?.atMost ?? false,
      }),
    ),
  );
}

/** Keeps the store's graph rooted at its `root`, an id or null for the outputs, until the returned function is called. */
export function followRoot(store) {
  function bring() {
    const graph = store.get("graph");
    const wanted = store.get("root");
    if (!graph || (graph.root ?? null) === wanted) return;
    const file = unrooted(graph);
    let found = file;
    let notice = null;
    try {
      found = wanted === null ? file : rootedGraph(file, wanted);
    } catch (error) {
      [found, notice] = [null, error.message];
    }
    if (found === null) return store.set({ root: null, ...(notice ? { notice } : {}) });
    const [pinned, hidden] = [store.get("pinned"), store.get("hidden")];
    const kept = found.node(store.get("selected")) ? {} : { selected: wanted };
    store.set({ graph: found, difference: null, ...unpruned(found, pinned, hidden), ...kept });
  }
  const disposer = store.subscribe(["root", "graph"], bring);
  bring();
  return disposer;
}
