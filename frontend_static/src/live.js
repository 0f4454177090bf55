/* Follows a running trace: its progress in a strip below the top bar, and its graph as it grows. */

import { h } from "./dom.js";

const PAUSE = 600;
const PATIENCE = 4;

/**
 * Asks `api.liveTrace()` until the trace has ended.
 *
 * `onGraph(json)` gets every new partial graph, `onEnd(status)` the last status; its state is `done`, `failed`, or `lost` when
 * the server is gone. `onStatus(status)` hears of every answer. Returns the function that ends it.
 */
export function followTrace(api, { onStatus, onGraph, onEnd, later = setTimeout }) {
  let version = 0;
  let failures = 0;
  let last = {};
  let over = false;

  async function ask() {
    if (over) return;
    try {
      const status = await api.liveTrace();
      failures = 0;
      last = status;
      onStatus(status);
      if (status.state !== "running") return onEnd(status);
      if (status.version !== version) {
        const json = await api.liveGraph();
        if (json && !over) onGraph(json);
        version = status.version;
      }
    } catch {
      failures += 1;
      if (failures >= PATIENCE) return onEnd({ ...last, state: "lost" });
    }
    later(ask, PAUSE);
  }

  ask();
  return () => {
    over = true;
  };
}

/** Annotations made on the partial graph put over those that the finished file has. */
export function mergedAnnotations(ours, theirs) {
  const taken = new Set(ours.supernodes.flatMap(([, ...ids]) => ids));
  const others = theirs.supernodes.filter(([, ...ids]) => !ids.some((id) => taken.has(id)));
  return {
    pinned: [...new Set([...theirs.pinned, ...ours.pinned])],
    supernodes: [...others, ...ours.supernodes],
    labels: { ...theirs.labels, ...ours.labels },
    notes: { graph: ours.notes.graph || theirs.notes.graph, nodes: { ...theirs.notes.nodes, ...ours.notes.nodes } },
  };
}

/** How far a phase is, from 0 to 1; null where that isn't known. */
export function portion({ done, total }) {
  return Number.isFinite(total) && total > 0 ? Math.min(1, done / total) : null;
}

/** `42 of 1,024` with the seconds, as the strip says it. */
export function amount({ done, total, seconds }) {
  const count = Number.isFinite(total) && total > 0 ? `${done.toLocaleString("en")} of ${total.toLocaleString("en")} · ` : "";
  return `${count}${Math.round(seconds)} s`;
}

/** The strip: `update(status)`, `element`. It shows itself while a trace runs, and stays if one failed. A run of the page's can be cancelled. */
export function progressStrip({ onShow, onCancel }) {
  const phase = h("strong", {});
  const bar = h("progress", { "aria-label": "Progress of the phase" });
  const count = h("span", { class: "muted" });
  const words = h("span", { class: "live-words", dir: "auto" });
  const show = h("button", { class: "small", type: "button", onclick: onShow, hidden: true }, "Show its graph");
  const cancel = h("button", { class: "small", type: "button", onclick: onCancel, hidden: true }, "Cancel");
  const element = h("div", { class: "live", hidden: true }, phase, bar, count, words, show, cancel);
  let said = "";

  function update(status, { elsewhere = false } = {}) {
    const running = status.state === "running";
    element.hidden = !running && status.state !== "failed" && status.state !== "lost";
    element.dataset.state = status.state;
    bar.hidden = !running;
    show.hidden = !(running && elsewhere);
    cancel.hidden = !(running && status.run);
    const part = running ? portion(status) : null;
    if (part === null) bar.removeAttribute("value");
    else bar.value = part;
    count.textContent = running ? amount(status) : "";
    phase.textContent = { running: capital(status.phase), failed: "No graph", lost: "The trace ended early" }[status.state] ?? "";
    words.textContent = wordsOf(status);
    if (phase.textContent === said) return;
    said = phase.textContent;
    element.setAttribute("role", running ? "status" : "alert");
  }

  return Object.freeze({ element, update });
}

function wordsOf({ state, version, error, hint }) {
  if (state === "failed") return [error, hint].filter(Boolean).join(" – ");
  if (state === "lost") return "The program that ran the trace has stopped. You see only a part of the graph.";
  return version > 0 ? "Partial graph: nodes and links are added as rows are traced." : "";
}

/** The text with a capital at its beginning. */
export function capital(text = "") {
  return text.charAt(0).toUpperCase() + text.slice(1);
}
