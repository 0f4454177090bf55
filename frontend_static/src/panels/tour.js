/* A short tour of the page, which can be left at any step. */

import { h } from "../dom.js";
import { remember, remembered } from "../theme.js";

const KEY = "circuit-tracer-tour";
const STEPS = [
  ["link-graph", "Each column is a token, each row a layer; the outputs are on top. Click a node to highlight its strongest inputs and outputs."],
  ["connections", "What feeds the node and what it feeds, strongest first. ↑ and ↓ walk along the strongest links."],
  ["feature", "What the feature responds to: the texts where it was most active, and the tokens that it promotes. Press e to name it."],
  ["subgraph", "Pin what matters (p, or Ctrl-click) and group it (hold g): the circuit takes shape here, ready to save as a figure for a paper."],
];

/** `{element, begin, unseen}`: the card, what opens it, and whether it was never seen in this browser. */
export function tour() {
  let at = -1;
  const text = h("p", {});
  const count = h("span", { class: "muted" });
  const next = h("button", { class: "small primary", type: "button", onclick: () => go(at + 1) });
  const skip = h("button", { class: "small", type: "button", onclick: () => go(STEPS.length) }, "Skip");
  const element = h("div", { class: "tour", role: "dialog", "aria-label": "Tour", hidden: true }, text, h("div", { class: "tour-foot" }, count, skip, next));
  element.addEventListener("keydown", (event) => {
    if (event.key !== "Escape") return;
    event.stopPropagation();
    go(STEPS.length);
  });

  function go(step) {
    document.querySelectorAll(".panel.toured").forEach((panel) => panel.classList.remove("toured"));
    at = step;
    element.hidden = step >= STEPS.length;
    if (element.hidden) return remember(KEY, "seen");
    const [name, words] = STEPS[step];
    text.textContent = words;
    count.textContent = `${step + 1} of ${STEPS.length}`;
    next.textContent = step + 1 < STEPS.length ? "Next" : "Done";
    const panel = document.querySelector(`[data-panel="${name}"]`)?.closest(".panel");
    panel?.classList.add("toured");
    if (panel && !panel.hidden) placeBeside(element, panel.getBoundingClientRect());
    next.focus();
  }
  return { element, begin: () => go(0), unseen: () => remembered(KEY) === null };
}

/** In the lower part of what it is about, where the page shows it. */
function placeBeside(element, { left, top, width, height }) {
  const [w, h] = [element.offsetWidth, element.offsetHeight];
  element.style.left = `${Math.max(8, Math.min(window.innerWidth - w - 8, left + (width - w) / 2))}px`;
  element.style.top = `${Math.max(8, Math.min(window.innerHeight - h - 8, top + height - h - 16))}px`;
}
