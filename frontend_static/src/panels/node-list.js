/* Every node of the graph in order of influence, with a search box and filters by kind. */

import { select, togglePin } from "../actions.js";
import { h, replaceKeepingFocus } from "../dom.js";
import { nodeLabel } from "../format.js";
import { matchesQuery } from "../graph.js";
import { nodeRow } from "./node-row.js";

const SHOWN = 200;
const FILTERS = [
  ["all", "All"],
  ["feature", "Features"],
  ["error", "Errors"],
  ["token", "Tokens"],
  ["logit", "Outputs"],
  ["pinned", "Pinned"],
];

export function nodeList(element, store) {
  let filter = "all";
  const field = h("input", {
    class: "search",
    type: "search",
    id: "node-search",
    placeholder: "Search labels, tokens, L12, feature ids",
    "aria-label": "Search nodes",
    autocomplete: "off",
    spellcheck: "false",
    oninput: () => store.set({ query: field.value }),
    onkeydown: (event) => moveOrChoose(event, store, list),
  });
  const chips = h("div", { class: "chips", role: "group", "aria-label": "Kinds of nodes" });
  const count = h("span", { class: "muted count", role: "status" });
  const list = h("div", { class: "scroll rows", onkeydown: (event) => moveFocus(event, field) });
  element.append(
    h("div", { class: "node-list" }, h("div", { class: "list-head" }, field, chips, count), list),
  );

  function render() {
    if (!store.get("shown").includes("nodes")) return;
    if (field.value !== store.get("query")) field.value = store.get("query");
    const found = findNodes(store, filter);
    chips.replaceChildren(
      ...FILTERS.map(([key, name]) =>
        chip(name, key === filter, () => {
          filter = key;
          render();
        }),
      ),
    );
    count.textContent = found.length > SHOWN ? `${SHOWN} of ${found.length}` : `${found.length}`;
    const rows = found.slice(0, SHOWN).map((node) => nodeRow(store, node));
    replaceKeepingFocus(
      list,
      ...rows,
      ...(found.length ? [] : [h("p", { class: "muted none" }, "Nothing matches.")]),
    );
  }

  const keys = ["graph", "query", "visible", "selected", "pinned", "labels", "shown", "featureLabels"];
  const dispose = store.subscribe(keys, render);
  render();
  return dispose;
}

function findNodes(store, filter) {
  const [graph, visible, labels] = [store.get("graph"), store.get("visible"), store.get("labels")];
  if (!graph) return [];
  const pinned = new Set(store.get("pinned"));
  const query = store.get("query");
  return graph.nodes
    .filter(
      (node) =>
        visible[node.index] &&
        (filter === "all" || (filter === "pinned" ? pinned.has(node.id) : node.kind === filter)),
    )
    .filter(
      (node) =>
        !query ||
        matchesQuery(
          node,
          `${nodeLabel(node, labels, store.get("featureLabels")[node.code])} ${node.clerp}`,
          query,
        ),
    )
    .sort((a, b) => (a.influence ?? -1) - (b.influence ?? -1) || (b.probability ?? 0) - (a.probability ?? 0));
}

function chip(name, pressed, onclick) {
  return h("button", { class: "chip", type: "button", "aria-pressed": String(pressed), onclick }, name);
}

/** Arrow keys go through the rows, and above the first back to the search box. */
function moveFocus(event, field) {
  const step = { ArrowDown: "nextElementSibling", ArrowUp: "previousElementSibling" }[event.key];
  if (!step) return;
  event.preventDefault();
  event.stopPropagation();
  const next = document.activeElement[step];
  if (next) next.focus();
  else if (event.key === "ArrowUp") field.focus();
}

/** Enter takes the first match (with Ctrl pins it), arrow down goes into the list, Escape leaves. */
function moveOrChoose(event, store, list) {
  const first = list.querySelector(".node-row");
  if (event.key === "Escape") event.target.blur();
  if (event.key === "ArrowDown" && first) first.focus();
  if (event.key !== "Enter" || !first) return;
  if (event.ctrlKey || event.metaKey) togglePin(store, first.dataset.node);
  else select(store, first.dataset.node, { toggle: false });
}
