/* Nodes added to a graph file in the page: kept as an annotation, put into the graph whenever it is shown. Pure but for the store. */

import { NONE, readAdded } from "./added-values.js";
import { withDifference } from "./difference.js";
import { fileGraph, graphWithNodes } from "./graph.js";
import { aboutPrompt } from "./heads.js";
import { unpruned } from "./pruned-graph.js";
import { unrooted } from "./rooted.js";

/** The graph as its file has it, without anything that the view has put in. */
export function fileOf(graph) {
  return unrooted(graph)?.original ?? unrooted(graph);
}

/** A graph with more nodes behind its own; those that it has already stay as they are. */
export function withAdded(file, added) {
  const fresh = added.nodes.filter(({ node_id: id }) => file.index(id) < 0);
  if (fresh.length === 0) return file;
  const ids = new Set(fresh.map(({ node_id: id }) => id));
  const links = added.links.filter(({ source, target }) => ids.has(source) || ids.has(target));
  return Object.freeze({ ...graphWithNodes(file, fresh, links), original: file, added });
}

/** The body of `POST api/expand`: the server also has to know what is there. */
export function expandRequest(graph, add) {
  return { ...aboutPrompt(graph), add, shown: fileGraph(graph).nodes.map(({ id }) => id) };
}

/** Puts what the server answered into the graph, in one step of undo. */
export function addNodes(store, { nodes, links }) {
  const before = store.get("added");
  const answered = readAdded({ nodes, links });
  store.edit({ added: Object.freeze({ nodes: [...before.nodes, ...answered.nodes], links: [...before.links, ...answered.links] }) });
}

/** Keeps the store's graph in step with what is added to it, until the returned function is called. */
export function followAdded(store) {
  function bring() {
    const graph = store.get("graph");
    const added = store.get("added");
    const now = unrooted(graph);
    if (!graph || (now.added ?? NONE) === added || (!now.added && added.nodes.every(({ node_id: id }) => now.index(id) >= 0))) return;
    const next = withDifference(withAdded(fileOf(graph), added), store.get("difference"));
    const gone = next.node(store.get("selected")) ? {} : { selected: null };
    store.set({ graph: next, ...unpruned(next, store.get("pinned"), store.get("hidden")), ...gone });
  }
  const disposer = store.subscribe(["added", "graph"], bring);
  bring();
  return disposer;
}
