/* A flow of the subgraph: how strong it is, and the links between members that it consists of. */

import { select, selectFlow } from "../actions.js";
import { h, icon } from "../dom.js";
import { nodeLabel, nodePlace, number, signedPercent } from "../format.js";
import { boxEdges, shownBoxes } from "../supernodes.js";
import { boxName } from "./subgraph-box.js";

/** The selected flow as `{names, weight, links}`, its links strongest first; null without one, or where its boxes aren't there any more. */
export function selectedFlow(store) {
  const [graph, pruned, chosen] = [store.get("graph"), store.get("pruned"), store.get("flow")];
  if (!chosen || !graph) return null;
  const boxes = shownBoxes(store);
  const [from, to] = [chosen.from, chosen.to].map((key) => boxes.findIndex((box) => box.key === key));
  const flow = boxEdges(graph, boxes, pruned).find((edge) => edge.from === from && edge.to === to);
  if (!flow) return null;
  const names = [from, to].map((i) => boxName(store, boxes[i]));
  return { names, weight: flow.weight, links: linksBetween(pruned, boxes[from], boxes[to]) };
}

/** Elements for the connections panel, or null without a flow. */
export function flowDetail(store) {
  const flow = selectedFlow(store);
  if (!flow) return null;
  const { names, links } = flow;
  return [
    h(
      "div",
      { class: "selection-head" },
      h(
        "div",
        { class: "selection-title" },
        h("strong", { dir: "auto" }, `${names[0]} → ${names[1]}`),
        h("span", { class: "muted" }, `${signedPercent(flow.weight)} of the input of “${names[1]}” from outside · ${links.length} ${links.length === 1 ? "link" : "links"}`),
      ),
      h("button", { class: "small quiet", type: "button", "aria-label": "Clear the selection", title: "Clear", onclick: () => selectFlow(store, null) }, icon("cross")),
    ),
    h("div", { class: "flow-members scroll" }, table(store, store.get("pruned"), links)),
  ];
}

function linksBetween(graph, from, to) {
  const sources = new Set(from.members.map((node) => node.index));
  const links = to.members.flatMap((node) => [...graph.inputs(node.index)].filter((k) => sources.has(graph.links.source[k])));
  return links.sort((a, b) => Math.abs(graph.links.weight[b]) - Math.abs(graph.links.weight[a]));
}

function table(store, graph, links) {
  const { source, target, share, weight } = graph.links;
  const name = (index) => {
    const node = graph.nodes[index];
    const label = nodeLabel(node, store.get("labels"), store.get("featureLabels")[node.code]);
    return h("button", { class: "link-button", type: "button", title: nodePlace(node), onclick: () => select(store, node.id, { toggle: false }) }, label);
  };
  return h(
    "table",
    {},
    h("thead", {}, h("tr", {}, ...["From", "To", "Weight", "Of its input"].map((text) => h("th", { scope: "col" }, text)))),
    h(
      "tbody",
      {},
      ...links.map((k) =>
        h("tr", {}, h("td", {}, name(source[k])), h("td", {}, name(target[k])), h("td", {}, number(weight[k])), h("td", {}, signedPercent(share[k]))),
      ),
    ),
  );
}
