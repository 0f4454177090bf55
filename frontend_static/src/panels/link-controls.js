/* Which links the link graph draws: by sign, and for pinned nodes by direction. */

import { explain } from "../actions.js";
import { h } from "../dom.js";
import { nodeLabel } from "../format.js";
import { differenceControls } from "./difference-controls.js";

const SIGNS = [
  ["all", "All"],
  ["positive", "Promoting"],
  ["negative", "Suppressing"],
];
const TYPES = [
  ["both", "between pins"],
  ["either", "any of a pin"],
  ["input", "into pins"],
  ["output", "out of pins"],
];

/** What the graph explains in place of its outputs, and the way back. */
function rootCrumb(store) {
  const name = h("span", { class: "root-name", dir: "auto" });
  const back = () => explain(store, null);
  const close = h("button", { class: "small quiet", type: "button", "aria-label": "Explain the outputs again", onclick: back }, "×");
  const element = h("span", { class: "root-crumb difference", role: "group", "aria-label": "Explained node", hidden: true }, "explains ", name, close);
  const render = () => {
    const node = store.get("graph")?.node(store.get("root"));
    element.hidden = !node;
    if (!node) return;
    name.textContent = nodeLabel(node, store.get("labels"), store.get("featureLabels")[node.code]);
    name.title = node.id;
  };
  store.subscribe(["graph", "root", "labels", "featureLabels"], render);
  return element;
}

export function linkControls(store) {
  const signs = h("div", { class: "segments", role: "group", "aria-label": "Sign of links" });
  const types = h(
    "select",
    {
      class: "small-select",
      "aria-label": "Links of pinned nodes",
      title: "Links drawn for pinned nodes when nothing is selected",
      onchange: () => store.set({ linkType: types.value }),
    },
    ...TYPES.map(([value, name]) => h("option", { value }, name)),
  );
  const counts = h("span", { class: "muted counts" });
  const count = () => {
    const graph = store.get("graph");
    if (!graph) return;
    const shown = store.get("visible").reduce((sum, byte) => sum + byte, 0);
    const links = store.get("pruned").links.count;
    const linked = links === graph.links.count ? "" : ` of ${graph.links.count.toLocaleString("en")}`;
    const nodes = shown === graph.nodes.length ? "" : ` of ${graph.nodes.length.toLocaleString("en")}`;
    counts.textContent = `${shown.toLocaleString("en")}${nodes} nodes · ${links.toLocaleString("en")}${linked} links`;
  };
  const render = () => {
    types.value = store.get("linkType");
    types.hidden = store.get("pinned").length === 0;
    signs.replaceChildren(
      ...SIGNS.map(([value, name]) =>
        h(
          "button",
          {
            class: "segment",
            type: "button",
            "aria-pressed": String(store.get("sign") === value),
            onclick: () => store.set({ sign: value }),
          },
          name,
        ),
      ),
    );
  };
  store.subscribe(["linkType", "sign", "pinned"], render);
  store.subscribe(["graph", "visible", "pruned"], count);
  render();
  return [counts, rootCrumb(store), differenceControls(store), types, signs];
}
