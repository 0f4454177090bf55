/* The legend of the link graph's shapes, colours and widths, until it is closed. */

import { h } from "../dom.js";
import { glyph, icon } from "../dom.js";
import { remember, remembered } from "../theme.js";

const KEY = "circuit-tracer-legend";

export function plotLegend() {
  const entries = [
    [glyph("feature"), "feature"],
    [glyph("token"), "token, output"],
    [glyph("error"), "error"],
    [h("span", { class: "legend-line positive" }), "promotes"],
    [h("span", { class: "legend-line negative" }), "suppresses"],
    [h("span", { class: "legend-line strong" }), "wider: stronger"],
  ];
  const list = h("ul", {}, ...entries.map(([mark, text]) => h("li", {}, mark, text)));
  const button = h("button", { class: "legend-toggle", type: "button", onclick: () => show(list.hidden, true) }, "");
  const element = h("div", { class: "plot-legend" }, list, button);
  function show(open, keep = false) {
    list.hidden = !open;
    button.replaceChildren(open ? icon("cross") : "Legend");
    button.setAttribute("aria-label", open ? "Hide the legend" : "Show the legend");
    button.setAttribute("aria-expanded", String(open));
    if (keep) remember(KEY, open ? "open" : "closed");
  }
  show(remembered(KEY) !== "closed");
  return element;
}
