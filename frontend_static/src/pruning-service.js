/* Answers pruning requests, one at a time, in the worker or in the page. Curves are drawn point by point and give way to whatever comes. Pure. */

import { createPruner } from "./pruning.js";

const SLICE = 12;

/**
 * The function that takes messages; `post(reply, buffers)` sends replies.
 *
 * - `{kind: "graph", input}` comes first, with what `pruningInput` gives.
 * - `{kind: "prune", nodes, links}` with the two thresholds is answered by `{kind: "pruned", nodes, links, kept, alive, point}`.
 * - `{kind: "curves", id, nodes, links, at: {nodes, links}}` by `{kind: "curve", id, axis, points}` for both axes, again and again as points are
 *   added; a later message for curves, or another graph, ends it.
 * - Where a graph can't be pruned, `{kind: "failed", error}`.
 */
export function pruningService(post, later = (run) => setTimeout(run, 0), now = () => performance.now()) {
  let pruner = null;
  let latest = 0;

  function trace(call, { id, nodes, links, at }) {
    const wanted = [
      ...at.links.map((value) => ({ axis: "links", value, thresholds: [nodes, value] })),
      ...at.nodes.map((value) => ({ axis: "nodes", value, thresholds: [value, links] })),
    ];
    const found = { nodes: [], links: [] };
    const next = () => {
      if (call !== latest) return;
      const until = now() + SLICE;
      const touched = new Set();
      do {
        const { axis, value, thresholds } = wanted.shift();
        found[axis].push({ at: value, ...pruner.point(...thresholds) });
        touched.add(axis);
      } while (wanted.length > 0 && now() < until);
      for (const axis of touched) post({ kind: "curve", id, axis, points: [...found[axis]] }, []);
      if (wanted.length > 0) later(next);
    };
    next();
  }

  return function receive(message) {
    if (message.kind === "graph") {
      latest += 1;
      try {
        pruner = createPruner(message.input);
      } catch (error) {
        pruner = null;
        post({ kind: "failed", error: error.message }, []);
      }
      return;
    }
    if (pruner === null) return;
    if (message.kind === "prune") {
      const { kept, alive, point } = pruner.prune(message.nodes, message.links);
      post({ kind: "pruned", nodes: message.nodes, links: message.links, kept, alive, point }, [kept.buffer]);
    } else {
      latest += 1;
      trace(latest, message);
    }
  };
}
