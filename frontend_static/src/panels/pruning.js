/* The strip of the two thresholds: a slider for nodes and one for links, each below the curves of what it would leave. */

import { h, svg, watchSize } from "../dom.js";
import { number } from "../format.js";
import { fileGraph, maxThreshold } from "../graph.js";
import { isPruned } from "../pruning-follow.js";
import { CURVES, drawChart } from "./pruning-chart.js";

const AXES = Object.freeze([
  { name: "nodes", key: "threshold", title: "Nodes", label: "Node threshold: share of the influence to keep", limit: maxThreshold },
  { name: "links", key: "edgeThreshold", title: "Links", label: "Link threshold: share of the link scores to keep", limit: () => 1 },
]);
const WATCHED = ["graph", "threshold", "edgeThreshold", "curves", "left", "visible", "pruned", "pruningOpen", "pruningProblem"];
const MEANING = {
  replacement: "In the kept graph: share of paths from tokens to outputs that go through features, not errors",
  completeness: "In the kept graph: share of the nodes' input that comes from features and tokens, not errors",
  explained: "Share of the file's influence that still reaches the tokens, with everything cut counted as unexplained",
  nodes: "Nodes that are shown",
  links: "Links that are shown",
};

/** `{element, dispose}`; the store's `pruningOpen` shows it. */
export function pruningStrip(store) {
  const axes = AXES.map((axis) => axisPart(store, axis));
  const facts = h("dl", { class: "prune-facts" });
  const about = h("p", { class: "muted prune-about" });
  const reset = h("button", { class: "small", type: "button", onclick: () => resetThresholds(store) }, "Show everything");
  const close = h("button", { class: "small quiet", type: "button", onclick: () => store.set({ pruningOpen: false }) }, "Close");
  const element = h(
    "section",
    { class: "prune", id: "prune", "aria-label": "Pruning", hidden: true, onkeydown: (event) => event.key === "Escape" && leave(event) },
    ...axes.map((axis) => axis.element),
    h("div", { class: "prune-side" }, facts, about, h("div", { class: "buttons" }, reset, close)),
  );

  function leave(event) {
    event.stopPropagation();
    store.set({ pruningOpen: false });
    document.querySelector(".prune-toggle")?.focus();
  }

  function render() {
    const graph = store.get("graph");
    element.hidden = !store.get("pruningOpen") || !graph;
    if (element.hidden) return;
    axes.forEach((axis) => axis.render());
    facts.replaceChildren(...factRows(store));
    about.textContent = store.get("pruningProblem") ?? aboutFile(graph.metadata);
    reset.disabled = !isPruned(store);
  }

  const disposers = [store.subscribe(WATCHED, render), ...axes.map((axis) => watchSize(axis.chart, axis.measure))];
  return { element, dispose: () => disposers.forEach((dispose) => dispose()) };
}

/** Opens the strip with the focus on its first slider, or closes it. */
export function togglePruning(store) {
  const open = !store.get("pruningOpen");
  store.set({ pruningOpen: open });
  if (open) document.querySelector("#prune input")?.focus();
}

export function resetThresholds(store) {
  const graph = store.get("graph");
  if (graph) store.set({ threshold: maxThreshold(graph), edgeThreshold: 1 });
}

function axisPart(store, { name, key, title, label, limit }) {
  const input = h("input", { type: "range", min: "0", step: "any", "aria-label": label, class: "prune-range" });
  const value = h("span", {});
  const chart = svg("svg", { class: "chart", "aria-hidden": "true" });
  const read = () => {
    const most = limit(store.get("graph"));
    const given = Number(input.value);
    return given >= most * 0.9995 ? most : Math.round(given * 1000) / 1000;
  };
  input.addEventListener("input", () => store.set({ [key]: read() }));
  input.addEventListener("keydown", (event) => {
    const step = { ArrowLeft: -0.01, ArrowDown: -0.01, ArrowRight: 0.01, ArrowUp: 0.01, PageDown: -0.1, PageUp: 0.1 }[event.key];
    if (step === undefined) return;
    event.preventDefault();
    event.stopPropagation();
    const most = limit(store.get("graph"));
    const finer = event.shiftKey ? step / 10 : step;
    store.set({ [key]: Math.min(most, Math.max(0, Math.round((store.get(key) + finer) * 1000) / 1000)) });
  });
  /** Asked for when it changes alone: asking while the panels are being filled makes the browser lay the page out again. */
  let size = { width: 0, height: 0 };
  const measure = () => {
    size = { width: chart.clientWidth, height: chart.clientHeight };
    if (store.get("graph") && size.width > 0) render();
  };
  const render = () => {
    const graph = store.get("graph");
    const most = limit(graph);
    input.max = String(most);
    if (Number(input.value) !== store.get(key)) input.value = String(store.get(key));
    input.disabled = store.get("pruningProblem") !== null;
    value.textContent = shown(store.get(key), most);
    input.setAttribute("aria-valuetext", value.textContent);
    const left = store.get("left");
    const fresh = left && left.nodeThreshold === store.get("threshold") && left.edgeThreshold === store.get("edgeThreshold");
    if (size.width === 0) return;
    drawChart(chart, {
      ...size,
      limit: most,
      points: store.get("curves")[name],
      current: store.get(key),
      point: fresh ? left : null,
      whole: wholeOf(graph),
    });
  };
  const element = h(
    "div",
    { class: "prune-axis", "data-axis": name },
    h("div", { class: "prune-head" }, h("strong", {}, title), value),
    chart,
    input,
  );
  return { element, chart, measure, render };
}

/** A threshold as it is written: at its end everything is shown. */
export function shown(value, limit) {
  return value >= limit ? "all" : value.toFixed(Number.isInteger(Math.round(value * 1e6) / 1e4) ? 2 : 3);
}

function wholeOf(graph) {
  const base = fileGraph(graph);
  return { nodes: base.nodes.length || 1, links: base.links.count || 1 };
}

function factRows(store) {
  const [graph, left, pruned] = [store.get("graph"), store.get("left"), store.get("pruned")];
  const nodes = countOf(store.get("visible"));
  const texts = {
    replacement: left ? number(left.replacement) : "–",
    completeness: left ? number(left.completeness) : "–",
    explained: left ? number(left.explained) : "–",
    nodes: `${nodes.toLocaleString("en")} of ${graph.nodes.length.toLocaleString("en")}`,
    links: `${pruned.links.count.toLocaleString("en")} of ${graph.links.count.toLocaleString("en")}`,
  };
  return CURVES.map(({ name, title }) =>
    h("div", {}, h("dt", { title: MEANING[name] }, swatch(name), title), h("dd", { "data-fact": name }, texts[name])),
  );
}

function countOf(bytes) {
  let count = 0;
  for (let i = 0; i < bytes.length; i += 1) count += bytes[i];
  return count;
}

function swatch(name) {
  const line = svg("path", { class: `curve curve-${name}`, d: "M0 3H18" });
  return svg("svg", { class: "swatch", viewBox: "0 0 18 6", "aria-hidden": "true" }, line);
}

/** Whether the numbers are about the model's whole graph, or about what an earlier pruning left in the file. */
export function aboutFile(metadata) {
  const settings = metadata.pruning_settings ?? {};
  const [nodes, edges] = [metadata.node_threshold ?? settings.node_threshold, settings.edge_threshold];
  if (nodes === 1 && edges === 1) return "The file has the full graph: these are the numbers of “prune” and “show”.";
  const known = [Number.isFinite(nodes) && `${nodes} for nodes`, Number.isFinite(edges) && `${edges} for links`].filter(Boolean);
  const cut = known.length > 0 ? `The file was pruned with ${known.join(" and ")}` : "The file may have been pruned before";
  const more = nodes < 1 ? " circuit-tracer export GRAPH --node-threshold 1 writes a larger file." : "";
  return `${cut}: scores and shares cover only what it contains. Nodes keep their earlier rank.${more}`;
}
