/* The file's own data on each node, read on demand. */

import { fileGraph } from "./graph.js";

/**
 * Keeps `attributes` of the store, an object per node or null before anybody has asked. `ask()` reads them for the graph that is shown, now and
 * after it has changed.
 */
export function createAttributes(store, readNodes) {
  let wanted = false;
  let reading = null;

  async function read() {
    const graph = fileGraph(store.get("graph"));
    if (!graph || reading === graph.nodes) return;
    reading = graph.nodes;
    const own = graph.attributes ?? (await readNodes(store.get("slug")).catch(() => null));
    const now = fileGraph(store.get("graph"));
    if (now.nodes !== graph.nodes) return;
    if (own === null) reading = null;
    else if (own.length === graph.nodes.length) store.set({ attributes: own });
  }

  store.subscribe(["graph"], () => {
    const graph = fileGraph(store.get("graph"));
    if (graph?.nodes === reading) return;
    reading = null;
    if (store.get("attributes") !== null) store.set({ attributes: null });
    if (wanted) read();
  });
  return Object.freeze({
    ask() {
      wanted = true;
      read();
    },
  });
}

/** The plain values of a node, `[[key, text], …]`, in the file's order; nulls and empty texts are left out. */
export function plainValues(attributes) {
  return Object.entries(attributes ?? {})
    .filter(([, value]) => ["string", "number", "boolean"].includes(typeof value) && value !== "")
    .map(([key, value]) => [key, typeof value === "number" ? String(Number(value.toPrecision(9))) : String(value)]);
}
