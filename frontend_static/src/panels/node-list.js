/* Every node of the graph, with a search box, filters by kind and by number, and a choice of order. */

import { pinAll, select, togglePin } from "../actions.js";
import { h, oneTabStop, replaceKeepingFocus } from "../dom.js";
import { RANGES, SORTS, activeFilters, findNodes } from "../node-filter.js";
import { nodeRow } from "./node-row.js";

const PAGE = 200;
const MOST_PINS = 500;
const KINDS = [
  ["all", "All"],
  ["feature", "Features"],
  ["error", "Errors"],
  ["token", "Tokens"],
  ["logit", "Outputs"],
  ["pinned", "Pinned"],
  ["noted", "Noted"],
];
const READ = ["graph", "visible", "pinned", "labels", "featureLabels", "notes", "query", "filters"];

export function nodeList(element, store) {
  let length = PAGE;
  const parts = makeParts(store);
  const { field, list } = parts;
  field.addEventListener("keydown", (event) => moveOrChoose(event, store, list));
  list.addEventListener("keydown", (event) => moveFocus(event, field));
  element.append(h("div", { class: "node-list" }, parts.head, list));

  function render() {
    if (!store.get("shown").includes("nodes")) return;
    const found = findNodes(stateOf(store));
    showHead(parts, store, found);
    const rows = found.slice(0, length).map((node) => nodeRow(store, node));
    replaceKeepingFocus(list, ...rows, ...(found.length === 0 ? [nothing(store)] : []), ...more(found.length));
    oneTabStop(list);
  }

  function more(count) {
    if (count <= length) return [];
    const next = Math.min(PAGE, count - length);
    const onclick = () => {
      length += PAGE;
      render();
    };
    return [h("button", { class: "more", type: "button", onclick }, `Show ${next} more of ${count - length}`)];
  }

  const disposers = [
    store.subscribe(["graph", "query", "filters"], () => {
      length = PAGE;
      list.scrollTop = 0;
    }),
    store.subscribe([...READ, "selected", "shown"], render),
  ];
  render();
  return () => disposers.forEach((dispose) => dispose());
}

function stateOf(store) {
  return Object.fromEntries(READ.map((key) => [key, store.get(key)]));
}

function makeParts(store) {
  const field = h("input", {
    class: "search",
    type: "search",
    id: "node-search",
    placeholder: "Search labels, tokens, notes, L12, feature ids",
    "aria-label": "Search nodes",
    autocomplete: "off",
    spellcheck: "false",
    oninput: () => store.set({ query: field.value }),
  });
  const chips = KINDS.map(([kind, name]) =>
    h(
      "button",
      { class: "chip", type: "button", "data-kind": kind, onclick: () => setFilter(store, { kind }) },
      name,
    ),
  );
  const ranges = rangeFields(store);
  const toggle = h(
    "button",
    {
      class: "small",
      type: "button",
      "aria-expanded": "false",
      "aria-controls": "node-ranges",
      onclick: () => {
        ranges.element.hidden = !ranges.element.hidden;
        toggle.setAttribute("aria-expanded", String(!ranges.element.hidden));
      },
    },
    "Filters",
  );
  const sort = h(
    "select",
    { class: "small-select", "aria-label": "Order", onchange: () => setFilter(store, { sort: sort.value }) },
    ...SORTS.map((name) => h("option", { value: name }, `by ${name}`)),
  );
  const count = h("span", { class: "muted count", role: "status" });
  const pin = h("button", { class: "small", type: "button", title: "Pin all listed nodes to the subgraph" });
  pin.addEventListener("click", () => pinAll(store, findNodes(stateOf(store)).map((node) => node.id)));
  const kinds = h("div", { class: "chips", role: "group", "aria-label": "Kinds of nodes" }, ...chips);
  const tools = h("div", { class: "list-tools" }, count, pin, sort, toggle);
  const list = h("div", { class: "scroll rows", tabindex: "-1" });
  const head = h("div", { class: "list-head" }, field, kinds, ranges.element, tools);
  return { field, chips, ranges, toggle, sort, count, pin, list, head };
}

function setFilter(store, change) {
  store.set({ filters: Object.freeze({ ...store.get("filters"), ...change }) });
}

function rangeFields(store) {
  const rows = RANGES.map(({ name, title }) => {
    const bounds = ["from", "to"].map((end, i) =>
      h("input", {
        class: "bound",
        type: "number",
        step: "any",
        placeholder: end,
        "aria-label": `${title} ${end}`,
        oninput: (event) => {
          const bound = event.target.value === "" ? null : Number(event.target.value);
          const next = [...(store.get("filters")[name] ?? [null, null])];
          next[i] = bound;
          setFilter(store, { [name]: Object.freeze(next) });
        },
      }),
    );
    return { name, bounds, element: h("div", { class: "range" }, h("span", { class: "muted" }, title), ...bounds) };
  });
  const clear = () => setFilter(store, Object.fromEntries(RANGES.map(({ name }) => [name, null])));
  const clearing = h("button", { class: "small quiet", type: "button", onclick: clear }, "Clear");
  const element = h(
    "div",
    { class: "ranges", id: "node-ranges", role: "group", "aria-label": "Filters", hidden: true },
    ...rows.map((row) => row.element),
    clearing,
  );
  return { rows, element };
}

function showHead({ field, chips, ranges, toggle, sort, count, pin }, store, found) {
  const [filters, graph] = [store.get("filters"), store.get("graph")];
  if (field.value !== store.get("query")) field.value = store.get("query");
  for (const chip of chips)
    chip.setAttribute("aria-pressed", String(chip.dataset.kind === (filters.kind ?? "all")));
  for (const { name, bounds } of ranges.rows)
    bounds.forEach((input, i) => {
      const value = filters[name]?.[i] ?? null;
      if (document.activeElement !== input) input.value = value === null ? "" : String(value);
    });
  const active = activeFilters(filters);
  toggle.textContent = active > 0 ? `Filters · ${active}` : "Filters";
  sort.value = filters.sort ?? "influence";
  const narrowed = store.get("query") !== "" || active > 0 || !["all", "pinned"].includes(filters.kind ?? "all");
  count.textContent = graph ? `${found.length.toLocaleString("en")} of ${graph.nodes.length.toLocaleString("en")}` : "";
  pin.hidden = !narrowed || found.length === 0 || found.length > MOST_PINS;
  pin.textContent = `Pin ${found.length}`;
}

function nothing(store) {
  const narrowed = activeFilters(store.get("filters")) > 0;
  return h("p", { class: "muted none" }, narrowed ? "Nothing matches. Some filters are on." : "Nothing matches.");
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
