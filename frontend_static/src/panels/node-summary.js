/* Details of a node without examples: the model's next tokens for an output, and its strongest links. */

import { select } from "../actions.js";
import { glyph, h } from "../dom.js";
import { nodeLabel, nodePlace, percent, tokenLabel, signedPercent } from "../format.js";
import { predictedTokens } from "../predictions.js";

const LINKS = 6;

/** Elements for an output, token or error. A row selects; it isn't hovered, since the panel shows what is hovered. */
export function nodeSummary(store, node) {
  const graph = store.get("pruned");
  if (!graph || !graph.nodes[node.index]) return [];
  return [node.kind === "logit" && nextTokens(store, graph, node), strongest(store, graph, node)].filter(Boolean);
}

function nextTokens(store, graph, node) {
  const rows = predictedTokens(graph);
  const largest = Math.max(...rows.map(({ probability }) => probability), 1e-9);
  return h(
    "section",
    { class: "summary" },
    h("h3", {}, rows.some(({ index }) => index === null) ? "The model's next token" : "Outputs of the graph"),
    h(
      "table",
      { class: "next-tokens" },
      h("tbody", {}, ...rows.map((row) => tokenRow(store, graph, row, node, largest))),
    ),
  );
}

function tokenRow(store, graph, { token, probability, index }, node, largest) {
  const other = index === null ? null : graph.nodes[index];
  const name = tokenLabel(token) || "␣";
  const choose = other && other !== node;
  return h(
    "tr",
    { class: other === node ? "is-selected" : "" },
    h(
      "td",
      { class: "mono", dir: "auto" },
      choose
        ? h("button", { class: "link-button", type: "button", onclick: () => select(store, other.id, { toggle: false }) }, name)
        : name,
    ),
    h("td", { class: "amount" }, percent(probability)),
    h("td", { class: "shares", "aria-hidden": "true" }, h("span", { class: "share share-after", style: { width: `${(100 * probability) / largest}%` } })),
    h("td", { class: "muted" }, other === null ? "not in the graph" : other === node ? "" : "in the graph"),
  );
}

function strongest(store, graph, node) {
  const incoming = node.kind === "logit";
  const [links, end] = incoming ? [graph.inputs(node.index), graph.links.source] : [graph.outputs(node.index), graph.links.target];
  const visible = store.get("visible");
  const found = [...links].filter((k) => visible[end[k]]).slice(0, LINKS);
  if (found.length === 0) return null;
  return h(
    "section",
    { class: "summary" },
    h("h3", {}, incoming ? "Strongest inputs" : "Strongest outputs"),
    ...found.map((k) => linkRow(store, graph.nodes[end[k]], graph.links.share[k])),
    links.length > found.length && h("p", { class: "muted" }, `All ${links.length} are under Connections.`),
  );
}

function linkRow(store, node, share) {
  const label = nodeLabel(node, store.get("labels"), store.get("featureLabels")[node.code]);
  return h(
    "button",
    { class: "node-row", type: "button", onclick: () => select(store, node.id, { toggle: false }) },
    glyph(node.kind),
    h("span", { class: "node-name", dir: "auto", title: label }, label),
    h("span", { class: "node-place", title: nodePlace(node) }, nodePlace(node)),
    h("span", { class: `node-amount ${share < 0 ? "falls" : "rises"}`, title: "of the target's input" }, signedPercent(share)),
  );
}
