/* How a figure is to be saved: which kind of file, how wide on paper, with what beside it. */

import { h } from "../dom.js";

const WIDTHS = [
  [85, "85 mm, one column"],
  [114, "114 mm, one and a half"],
  [174, "174 mm, two columns"],
];

/** `{dialog, ask}`: `ask(save)` opens it and calls `save({kind, millimetres, legend, weights})`. */
export function figureDialog() {
  let save = () => {};
  const kind = select([["pdf", "PDF"], ["svg", "SVG"], ["png", "PNG, 300 dots per inch"]]);
  const width = select(WIDTHS);
  const legend = h("input", { type: "checkbox", checked: true });
  const weights = h("input", { type: "checkbox" });
  const form = h(
    "form",
    { class: "figure-form", method: "dialog" },
    ...row("figure-kind", "File", kind),
    ...row("figure-width", "Width on paper", width),
    h("label", { class: "check wide" }, legend, "Legend of lines and boxes (subgraph)"),
    h("label", { class: "check wide" }, weights, "Weights as text (subgraph)"),
    h(
      "div",
      { class: "dialog-buttons wide" },
      h("button", { class: "small", type: "button", onclick: () => dialog.close() }, "Cancel"),
      h("button", { class: "small primary", type: "submit" }, "Save"),
    ),
  );
  form.addEventListener("submit", () => save({ kind: kind.value, millimetres: Number(width.value), legend: legend.checked, weights: weights.checked }));
  const dialog = h("dialog", { class: "sheet", "aria-label": "Save the figure for a paper" }, h("h2", {}, "Save for a paper"), form);
  const ask = (then) => {
    save = then;
    dialog.showModal();
  };
  return { dialog, ask };
}

function select(entries) {
  return h("select", { class: "small-select" }, ...entries.map(([value, name]) => h("option", { value }, name)));
}

function row(id, name, field) {
  field.id = id;
  return [h("label", { for: id }, name), field];
}
