/* The strongest paths from the prompt to the outputs, or through the selected node; one under the pointer is shown in the graph. */

import { click, hover, pinAll } from "../actions.js";
import { h } from "../dom.js";
import { nodeLabel, nodePlace, percent } from "../format.js";
import { strongestPaths } from "../paths.js";

const COUNT = 12;
const SHARES =
  "A path's share of the outputs: the product of its links' shares of their targets' input, times the output's probability. " +
  "Shares are relative to the graph in this file. circuit-tracer show reports shares of the full graph, which are smaller.";

const noteOf = (total) => `${percent(total)} together, of the shown graph`;

export function paths(element, store) {
  const list = h("div", { class: "paths scroll", role: "list" });
  const scope = h("div", { class: "path-scope segments", role: "group", "aria-label": "Which paths" });
  const note = h("span", { class: "muted path-note", title: SHARES });
  element.append(h("div", { class: "path-head" }, scope, note), list);
  let chosen = "all";

  function through() {
    const graph = store.get("graph");
    return graph && chosen === "selected" ? graph.index(store.get("selected")) : -1;
  }

  function render() {
    const graph = store.get("pruned");
    if (!graph || !store.get("shown")?.includes("paths")) return;
    const found = strongestPaths(graph, store.get("visible"), { count: COUNT, through: through() });
    scope.replaceChildren(
      ...[
        ["all", "From the prompt"],
        ["selected", "Through the selection"],
      ].map(([value, name]) =>
        h(
          "button",
          {
            class: "segment",
            type: "button",
            "aria-pressed": String(chosen === value),
            onclick: () => {
              chosen = value;
              render();
            },
          },
          name,
        ),
      ),
    );
    const total = found.reduce((sum, path) => sum + path.strength, 0);
    note.textContent = found.length ? noteOf(total) : "";
    list.replaceChildren(
      ...(found.length
        ? found.map((path) => row(store, graph, path))
        : [h("div", { class: "empty" }, h("p", {}, "No path between visible nodes."))]),
    );
  }

  const disposers = [
    store.subscribe(["pruned", "visible", "shown", "labels", "featureLabels"], render),
    store.subscribe(["selected"], () => chosen === "selected" && render()),
    store.subscribe(["shown"], () => !store.get("shown")?.includes("paths") && store.set({ path: null })),
  ];
  render();
  return () => {
    store.set({ path: null });
    disposers.forEach((dispose) => dispose());
  };
}

function row(store, graph, path) {
  const show = () => store.set({ path: path.links });
  const hide = () => store.set({ path: null });
  const steps = path.nodes.flatMap((index, i) => {
    const node = graph.nodes[index];
    const sign = i === 0 ? null : arrow(graph.links.weight[path.links[i - 1]]);
    return [sign, step(store, node)].filter(Boolean);
  });
  return h(
    "div",
    { class: "path-row", role: "listitem", onpointerenter: show, onpointerleave: hide, onfocusin: show, onfocusout: hide },
    h(
      "span",
      {
        class: `path-strength ${path.sign > 0 ? "positive" : "negative"}`,
        title: `${path.sign > 0 ? "raises" : "lowers"} the output: ${percent(path.strength)} of what reaches the outputs, of the shown graph`,
      },
      `${path.sign > 0 ? "" : "−"}${percent(path.strength)}`,
    ),
    h("span", { class: "path-steps", dir: "auto" }, ...steps),
    h(
      "button",
      {
        class: "small path-pin",
        type: "button",
        title: "Pin every node of this path",
        onclick: () => pinAll(store, path.nodes.map((index) => graph.nodes[index].id)),
      },
      "Pin",
    ),
  );
}

function arrow(weight) {
  return h("span", { class: `path-arrow ${weight > 0 ? "positive" : "negative"}` }, weight > 0 ? "→" : "⊣");
}

function step(store, node) {
  const label = nodeLabel(node, store.get("labels"), store.get("featureLabels")[node.code]);
  return h(
    "button",
    {
      class: `path-step ${node.kind}`,
      type: "button",
      title: `${label} · ${nodePlace(node)}`,
      "data-node": node.id,
      onclick: (event) => click(store, node.id, event),
      onpointerenter: () => hover(store, node.id),
      onpointerleave: () => hover(store, null),
    },
    label,
  );
}
