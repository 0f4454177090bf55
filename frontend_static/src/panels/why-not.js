/* Below the difference of two outputs: what pushes both, what pushes one alone, what holds one down. */

import { select } from "../actions.js";
import { glyph, h } from "../dom.js";
import { nodeLabel, nodePlace, number, signed, tokenLabel } from "../format.js";
import { LISTS, whyNot } from "../why-not.js";

const name = (node) => `“${tokenLabel(node.logitToken || node.id)}”`;

/** Elements for the node of a difference. */
export function whyNotLists(store, node) {
  const graph = store.get("graph");
  const [a, b] = [node.difference.a, node.difference.b].map((id) => graph.node(id));
  if (!a || !b) return [];
  const { difference, lists, rest } = whyNot(graph, { a, b });
  const known = difference === null ? "" : ` The logit of ${name(a)} is ${number(difference)} larger.`;
  return [
    h("p", { class: "muted" }, `What each source adds to the difference, by direct effect.${known}`),
    ...LISTS.filter(([key]) => lists[key].count > 0).map(([key, title]) => list(store, graph, title(name(a), name(b)), key, lists[key])),
    rest !== null &&
      h("p", { class: "muted why-not-rest" }, `${signed(rest)} is in no link of the file: biases, and what pruning and the limit on nodes left out.`),
  ].filter(Boolean);
}

function list(store, graph, title, key, { sum, count, strongest }) {
  const sources = count === 1 ? "1 source" : `${count.toLocaleString("en")} sources`;
  return h(
    "section",
    { class: "summary why-not", "data-list": key, "aria-label": title },
    h("h3", {}, title, h("span", { class: "muted" }, ` ${signed(sum)}, ${sources}`)),
    ...strongest.map(({ index, value, answer, other }) => row(store, graph.nodes[index], value, `${signed(answer)} on the first, ${signed(other)} on the second`)),
  );
}

function row(store, node, value, title) {
  const label = nodeLabel(node, store.get("labels"), store.get("featureLabels")[node.code]);
  return h(
    "button",
    { class: "node-row", type: "button", "data-node": node.id, title, onclick: () => select(store, node.id, { toggle: false }) },
    glyph(node.kind),
    h("span", { class: "node-name", dir: "auto" }, label),
    h("span", { class: "node-place" }, nodePlace(node)),
    h("span", { class: "node-amount" }, signed(value)),
  );
}
