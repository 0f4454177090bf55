/* Chooses two outputs whose difference becomes a node of its own. */

import { setDifference } from "../actions.js";
import { h } from "../dom.js";
import { differenceCaveat, outputs, readDifference, writeDifference } from "../difference.js";
import { percent, tokenLabel } from "../format.js";

export function differenceControls(store) {
  const open = h(
    "button",
    {
      class: "small",
      type: "button",
      title: "Add a node for the difference of two outputs: what raises one over the other",
      onclick: () => {
        const [a, b] = outputs(store.get("graph"));
        setDifference(store, writeDifference(store.get("graph"), a, b));
        choices[0].focus();
      },
    },
    "A − B",
  );
  const choices = ["First output", "Output to take away"].map((name) =>
    h("select", { class: "small-select difference-choice", "aria-label": name, onchange: choose }),
  );
  const close = h(
    "button",
    {
      class: "small quiet",
      type: "button",
      "aria-label": "Remove the difference",
      onclick: () => {
        setDifference(store, null);
        open.focus();
      },
    },
    "×",
  );
  const caveat = h("span", { class: "difference-caveat", role: "img", hidden: true }, "⚠");
  const chosen = h(
    "span",
    { class: "difference", role: "group", "aria-label": "Difference of outputs" },
    ...[choices[0], "−", choices[1], caveat, close],
  );
  const element = h("span", { class: "difference-controls" }, open, chosen);

  /** Choosing what the other side holds changes the sides. */
  function choose(event) {
    const graph = store.get("graph");
    const before = readDifference(graph, store.get("difference"));
    let [a, b] = choices.map(({ value }) => graph.node(value));
    if (a === b) [a, b] = event.target === choices[0] ? [a, before.a] : [before.b, b];
    setDifference(store, writeDifference(graph, a, b));
  }

  function render() {
    const graph = store.get("graph");
    const all = graph ? outputs(graph) : [];
    const pair = graph && readDifference(graph, store.get("difference"));
    element.hidden = all.length < 2 || store.get("root") !== null;
    open.hidden = Boolean(pair);
    chosen.hidden = !pair;
    if (!pair) return;
    const warning = differenceCaveat(graph, pair);
    caveat.hidden = !warning?.isEmpty;
    caveat.title = warning?.text ?? "";
    caveat.setAttribute("aria-label", caveat.title);
    choices.forEach((select, side) => offer(select, all, side === 0 ? pair.a : pair.b));
  }

  store.subscribe(["graph", "difference", "root"], render);
  render();
  return element;
}

/** Lets the select choose among the outputs, with one of them chosen. */
function offer(select, all, chosen) {
  select.replaceChildren(
    ...all.map((node) => h("option", { value: node.id }, `${tokenLabel(node.logitToken || node.id, 20)} · ${percent(node.probability)}`)),
  );
  select.value = chosen.id;
}
