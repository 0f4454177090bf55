/* Asks for prunings: a worker for large graphs, the page itself for small ones and where there are no workers. While one is under way, only the latest wish is kept. */

import { pruningInput } from "./pruning.js";
import { pruningService } from "./pruning-service.js";

const SMALL = 20_000;

/** `onPruned({kept, alive, point, nodes, links})`, `onCurve(axis, points)` and `onFailed(text)` hear of the graph that was loaded last. */
export function pruningClient({ onPruned, onCurve, onFailed }) {
  let worker = null;
  let [loaded, send] = [null, null];
  let [round, busy, wish, curves] = [0, false, null, 0];

  function hear(from, reply) {
    if (from !== round) return;
    if (reply.kind === "failed") return onFailed(reply.error);
    if (reply.kind === "curve") return reply.id === curves && onCurve(reply.axis, reply.points);
    busy = false;
    if (wish === null) onPruned(reply);
    else ask();
  }

  /** A graph goes to the worker when the first question about it comes: the copy of its links would be felt while it opens. */
  function begin() {
    if (send !== null || loaded === null) return;
    const from = round;
    worker = loaded.links.count > SMALL ? startWorker((reply) => hear(from, reply)) : null;
    const service = worker ? null : pruningService((reply) => hear(from, reply));
    send = worker ? (message) => worker.postMessage(message) : service;
    send({ kind: "graph", input: pruningInput(loaded) });
  }

  function ask() {
    const { nodes, links } = wish;
    [busy, wish] = [true, null];
    begin();
    send?.({ kind: "prune", nodes, links });
  }

  return Object.freeze({
    load(graph) {
      round += 1;
      [busy, wish] = [false, null];
      worker?.terminate();
      [worker, send, loaded] = [null, null, graph];
    },
    prune(nodes, links) {
      wish = { nodes, links };
      if (!busy) ask();
    },
    curves(nodes, links, at) {
      curves += 1;
      begin();
      send?.({ kind: "curves", id: curves, nodes, links, at });
    },
  });
}

function startWorker(listener) {
  try {
    const worker = new Worker(new URL("./pruning-worker.js", import.meta.url), { type: "module" });
    worker.addEventListener("message", ({ data }) => listener(data));
    worker.addEventListener("error", () => listener({ kind: "failed", error: "Pruning failed in this page." }));
    return worker;
  } catch {
    return null;
  }
}
