/* Keeps `visible` and `pruned` of the store in step with the two thresholds, and draws the curves while they are looked at. */

import { setAside } from "./compare.js";
import { fileGraph, maxThreshold } from "./graph.js";
import { prunedGraph, visibleNodes } from "./pruned-graph.js";
import { pruningClient } from "./pruning-client.js";

const POINTS = 33;
const SETTLED = 160;
const ALL = Object.freeze({ kept: null, alive: null });

/** Follows the store until the returned function is called. */
export function followPruning(store) {
  let [loaded, sent, result] = [null, null, ALL];
  const client = pruningClient({
    onPruned(reply) {
      if (sent !== loaded.links || reply.nodes !== store.get("threshold") || reply.links !== store.get("edgeThreshold")) return;
      result = isPruned(store) ? reply : ALL;
      apply({ left: Object.freeze({ ...reply.point, nodeThreshold: reply.nodes, edgeThreshold: reply.links }) });
    },
    onCurve: (axis, points) => store.set({ curves: Object.freeze({ ...store.get("curves"), [axis]: points }) }),
    onFailed: (problem) => store.set({ pruningProblem: problem }),
  });
  const trace = curvesWhenSettled(store, client);

  function load() {
    const base = fileGraph(store.get("graph"));
    if (!base) return;
    const same = base.links === loaded?.links;
    loaded = base;
    if (!same) {
      result = ALL;
      store.set({ pruningProblem: null, curves: Object.freeze({ nodes: [], links: [] }) });
    }
    apply({});
    follow();
  }

  /** The links are handed over when a pruning is wanted for the first time. */
  function ready() {
    if (sent === loaded.links) return;
    sent = loaded.links;
    client.load(loaded);
  }

  /** At the ends of both sliders nothing is cut, and the numbers of the whole are only told where somebody looks. */
  function run() {
    if (!loaded) return;
    if (!isPruned(store) && result !== ALL) {
      result = ALL;
      apply({ left: null });
    }
    if (!isPruned(store) && !store.get("pruningOpen")) return;
    ready();
    client.prune(store.get("threshold"), store.get("edgeThreshold"));
  }

  function follow() {
    run();
    trace(loaded);
  }

  const apply = (more) => showResult(store, result, more);
  const disposers = [
    store.subscribe(["graph"], load),
    store.subscribe(["threshold", "edgeThreshold"], follow),
    store.subscribe(["pruningOpen"], follow),
    store.subscribe(["pinned", "hidden", "least", "side"], () => apply({})),
  ];
  return () => disposers.forEach((dispose) => dispose());
}

/** Puts what a pruning left into the store, with `more`. */
function showResult(store, result, more) {
  const graph = store.get("graph");
  if (!graph) return;
  const pinned = store.get("pinned");
  const aside = setAside(graph, store.get("least"), store.get("side"));
  const found = visibleNodes(graph, result.alive, pinned, store.get("hidden"), aside);
  const before = store.get("visible");
  const same = before?.length === found.length && found.every((byte, index) => byte === before[index]);
  const visible = same ? before : found;
  store.set({ visible, pruned: prunedGraph(graph, result, visible, pinned, aside), ...more });
}

/** Asks for a graph's curves when the sliders have come to rest, while they are looked at. */
function curvesWhenSettled(store, client) {
  let timer = 0;
  return (graph) => {
    window.clearTimeout(timer);
    if (!store.get("pruningOpen") || !graph) return;
    const at = { nodes: steps(maxThreshold(graph)), links: steps(1) };
    timer = window.setTimeout(() => client.curves(store.get("threshold"), store.get("edgeThreshold"), at), SETTLED);
  };
}

/** Whether a threshold is below its end. */
export function isPruned(store) {
  const graph = store.get("graph");
  return graph !== null && (store.get("threshold") < maxThreshold(graph) || store.get("edgeThreshold") < 1);
}

function steps(limit) {
  return Array.from({ length: POINTS }, (_, i) => (limit * i) / (POINTS - 1));
}
