/* What goes into the selected node and what comes out of it, strongest first, promoting and suppressing apart. */

import { select, selectedIndices, togglePin } from "../actions.js";
import { glyph, h, icon, oneTabStop, replaceKeepingFocus } from "../dom.js";
import { layerLabel, nodeLabel, nodePlace, number, ownInfluence, signedPercent } from "../format.js";
import { groupConnections } from "../supernodes.js";
import { flowDetail } from "./flow-detail.js";
import { hiddenInputs } from "./hidden-inputs.js";
import { nodeRow } from "./node-row.js";

const PAGE = 60;
const MOST_ERRORS = 200;

export function connections(element, store, services = {}) {
  const body = h("div", { class: "connections" });
  element.append(body);
  const hidden = hiddenInputs(store, services, () => render());

  function render() {
    const graph = store.get("pruned");
    const node = graph?.node(store.get("selected"));
    const flow = node ? null : flowDetail(store);
    replaceKeepingFocus(body, ...(node ? selection(store, graph, node, hidden) : (flow ?? [emptyState()])));
    oneTabStop(body);
  }

  const keys = [
    "pruned",
    "selected",
    "pinned",
    "labels",
    "visible",
    "theme",
    "sign",
    "supernodes",
    "featureLabels",
    "wholeGroup",
    "flow",
    "expanded",
  ];
  const disposers = [store.subscribe(keys, render), store.subscribe(["graph"], () => hidden.opened())];
  render();
  hidden.opened();
  return () => disposers.forEach((dispose) => dispose());
}

function emptyState() {
  return h(
    "div",
    { class: "empty" },
    h("p", {}, "Click a node to see what feeds it and what it feeds."),
    h(
      "p",
      { class: "muted" },
      "Press ",
      h("kbd", {}, "/"),
      " to search, ",
      h("kbd", {}, "↑"),
      " ",
      h("kbd", {}, "↓"),
      " to walk along the strongest links, ",
      h("kbd", {}, "?"),
      " for everything else.",
    ),
  );
}

function selection(store, graph, node, hidden) {
  const group = store.get("supernodes").find(([, ...ids]) => ids.includes(node.id));
  const whole = group && store.get("wholeGroup");
  const sides = [
    ["input", "Inputs"],
    ["output", "Outputs"],
  ].map(([direction, title]) => column(store, graph, node, direction, title));
  const used = sides.filter(({ count }) => count > 0);
  const shown = used.length > 0 ? used : sides;
  return [
    whole ? groupHeader(store, group) : header(store, node, group),
    h(
      "div",
      { class: shown.length === 1 ? "columns single" : "columns" },
      ...shown.map(({ element }) => element),
    ),
    ...(whole ? [] : hidden.parts(graph, node)),
  ];
}

function groupHeader(store, [label]) {
  const count = selectedIndices(store).length;
  return h(
    "div",
    { class: "selection-head" },
    h(
      "div",
      { class: "selection-title" },
      h("strong", { dir: "auto" }, label),
      h("span", { class: "muted" }, `supernode · ${count} ${count === 1 ? "node" : "nodes"}`),
    ),
    clearButton(store),
  );
}

function clearButton(store) {
  return h(
    "button",
    {
      class: "small quiet",
      type: "button",
      "aria-label": "Clear the selection",
      title: "Clear (Esc)",
      onclick: () => select(store, null),
    },
    icon("cross"),
  );
}

function header(store, node, group) {
  const pinned = store.get("pinned").includes(node.id);
  const facts = [
    nodePlace(node),
    node.feature !== null && `feature ${node.feature}`,
    node.activation !== null && `activation ${number(node.activation)}`,
    node.influence !== null && `influence ${ownInfluence(node)}`,
    group && `in “${group[0]}”`,
  ].filter(Boolean);
  return h(
    "div",
    { class: "selection-head" },
    glyph(node.kind),
    h(
      "div",
      { class: "selection-title" },
      h(
        "strong",
        { dir: "auto" },
        nodeLabel(node, store.get("labels"), store.get("featureLabels")[node.code]),
      ),
      h("span", { class: "muted" }, facts.join(" · ")),
    ),
    h(
      "button",
      {
        class: "small",
        type: "button",
        title: pinned ? "Take out of the subgraph (p)" : "Pin to the subgraph (p)",
        onclick: () => togglePin(store, node.id),
      },
      pinned ? "Unpin" : "Pin",
    ),
    clearButton(store),
  );
}

function column(store, graph, node, direction, title) {
  const visible = store.get("visible");
  const found = groupConnections(graph, selectedIndices(store), direction).filter(
    ({ other }) => visible[other],
  );
  const isError = ({ other }) => graph.nodes[other].kind === "error";
  const [all, errors] = [found.filter((row) => !isError(row)), found.filter(isError)];
  const sign = store.get("sign");
  const parts = [
    ["Promoting", all.filter(({ share }) => share > 0), "positive"],
    ["Suppressing", all.filter(({ share }) => share < 0), "negative"],
  ].filter(([, , name]) => sign === "all" || sign === name);
  const widest = Math.max(0, ...found.map(({ share }) => Math.abs(share)));
  const folded = errors.filter(({ share }) => sign === "all" || share > 0 === (sign === "positive"));
  const count = parts.reduce((sum, [, rows]) => sum + rows.length, folded.length);
  const element = h(
    "div",
    { class: "column", "data-direction": direction },
    h("h3", {}, `${title} `, h("span", { class: "muted" }, String(count))),
    h(
      "div",
      { class: "scroll" },
      count === 0 && h("p", { class: "muted none" }, `No ${title.toLowerCase()} among the visible nodes.`),
      ...parts.flatMap(([name, rows]) =>
        rows.length ? [section(store, graph, node, direction, name, rows, widest)] : [],
      ),
      folded.length > 0 && errorFold(store, graph, node, folded, widest),
    ),
  );
  return { element, count };
}

/** Errors say how much a graph leaves unexplained, not by what: one line tells their sum and opens to all of them. */
function errorFold(store, graph, node, rows, widest) {
  const sum = (sign) => rows.filter(({ share }) => share > 0 === sign > 0).reduce((total, { share }) => total + share, 0);
  const sums = [sum(1), sum(-1)].filter((value) => value !== 0).map(signedPercent).join(" · ");
  const box = h("div", { class: "rows", role: "group", "aria-label": "Errors", hidden: !store.get("errorsOpen") });
  const list = () => box.replaceChildren(...rows.slice(0, MOST_ERRORS).map((row) => connectionRow(store, graph, node, row, widest)));
  const fold = h(
    "button",
    { class: "fold", type: "button", "aria-expanded": String(!box.hidden), title: "What the transcoders leave out" },
    glyph("error"),
    h("span", { class: "node-name" }, `${rows.length} ${rows.length === 1 ? "error" : "errors"}`),
    h("span", { class: "node-amount" }, sums),
  );
  fold.addEventListener("click", () => {
    box.hidden = !box.hidden;
    store.set({ errorsOpen: !box.hidden });
    fold.setAttribute("aria-expanded", String(!box.hidden));
    if (!box.hidden) list();
  });
  if (!box.hidden) list();
  return h("div", {}, fold, box);
}

function section(store, graph, node, direction, name, rows, widest) {
  const box = h("div", { class: "rows", role: "group", "aria-label": name }, h("h4", {}, name));
  const append = (from) => {
    box.append(...rows.slice(from, from + PAGE).map((row) => connectionRow(store, graph, node, row, widest)));
    const left = rows.length - from - PAGE;
    if (left <= 0) return;
    const more = h(
      "button",
      { class: "more", type: "button" },
      `Show ${Math.min(left, PAGE)} more of ${left}`,
    );
    more.addEventListener("click", () => {
      more.remove();
      append(from + PAGE);
    });
    box.append(more);
  };
  append(0);
  return box;
}

function connectionRow(store, graph, node, { other, share, weight }, widest) {
  const target = graph.nodes[other];
  const arrow = target.position < node.position ? "←" : target.position > node.position ? "→" : "";
  const row = nodeRow(store, target, { share, weight, widest, arrow });
  row.setAttribute("aria-description", `${layerLabel(target)}, ${name(share)}`);
  return row;
}

function name(share) {
  return share < 0 ? "suppressing" : "promoting";
}
