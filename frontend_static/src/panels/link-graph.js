/* The link graph: tokens as columns, layers as rows, links of the selection. */

import { click, hover, select, selectedIndices } from "../actions.js";
import { h } from "../dom.js";
import { layerLabel, nodeLabel, nodePlace, number, showToken, signedPercent, tokenLabel } from "../format.js";
import { maxThreshold } from "../graph.js";
import { layoutGraph, nearestLookup } from "../layout.js";
import { clamp } from "../scales.js";
import { palette } from "../theme.js";
import { drawGraph, drawHover, prepare } from "./link-graph-draw.js";

const LABEL_LENGTH = 14;
const REACH = 30;
const MAX_ZOOM = 30;
const MANY_NODES = 1200;

export function linkGraph(element, store) {
  const base = h("canvas", { class: "layer", role: "img", "aria-label": "Attribution graph: tokens by layers" });
  const top = h("canvas", { class: "layer" });
  const labels = h("div", { class: "plot-labels", "aria-hidden": "true" });
  const tooltip = h("div", { class: "tooltip", role: "status", hidden: true });
  const plot = h("div", { class: "plot" }, base, top, labels, tooltip);
  element.append(plot);

  const view = { zoom: 1, x: 0, y: 0 };
  let margin = margins(null);
  let size = { width: 0, height: 0 };
  let layout = null;
  let nearest = () => -1;
  let pending = 0;

  const inner = () => ({
    x: margin.left, y: margin.top,
    width: Math.max(10, size.width - margin.left - margin.right),
    height: Math.max(10, size.height - margin.top - margin.bottom),
  });
  const project = (x, y) => [margin.left + x * view.zoom + view.x, margin.top + y * view.zoom + view.y];

  function arrange() {
    const graph = store.get("graph");
    if (!graph || size.width === 0) return;
    margin = margins(graph);
    const slanted = layoutGraph(graph, store.get("visible"), inner().width, 1).columns.filter((column) => !isFlat(graph, column, column.width));
    margin = margins(graph, slanted);
    const { width, height } = inner();
    layout = layoutGraph(graph, store.get("visible"), width, height);
    nearest = nearestLookup(layout.x, layout.y);
    redraw();
  }

  function scene() {
    const graph = store.get("graph");
    const indices = (ids) => new Set((ids ?? []).map(graph.index).filter((index) => index >= 0));
    const shown = store.get("visible").reduce((sum, byte) => sum + byte, 0);
    return {
      graph, layout, project, plot: inner(), palette: palette(), visible: store.get("visible"),
      selected: graph.index(store.get("selected")), selection: new Set(selectedIndices(store)), hovered: graph.index(store.get("hovered")),
      pinned: indices(store.get("pinned")), marked: indices(store.get("grouping")),
      linkType: store.get("linkType"), sign: store.get("sign"), limit: maxThreshold(graph) ?? 1,
      radius: ((shown > MANY_NODES ? 2.6 : 4) * Math.min(1.8, Math.sqrt(view.zoom)) * fontSize()) / 13,
    };
  }

  function redraw() {
    cancelAnimationFrame(pending);
    pending = requestAnimationFrame(() => {
      if (!layout || !store.get("graph")) return;
      const now = scene();
      drawGraph(prepare(base, size.width, size.height), now);
      drawHover(prepare(top, size.width, size.height), now);
      labels.replaceChildren(...axisLabels(now));
    });
  }

  function redrawHover() {
    if (!layout || !store.get("graph")) return;
    const now = scene();
    drawHover(prepare(top, size.width, size.height), now);
    showTooltip(tooltip, now, store, size);
  }

  function nodeAt(event) {
    const box = plot.getBoundingClientRect();
    const [x, y] = [event.clientX - box.left - margin.left, event.clientY - box.top - margin.top];
    const found = nearest((x - view.x) / view.zoom, (y - view.y) / view.zoom, REACH / view.zoom);
    return store.get("graph")?.nodes[found]?.id ?? null;
  }

  function zoomAt(event, wanted) {
    const box = plot.getBoundingClientRect();
    const [x, y] = [event.clientX - box.left - margin.left, event.clientY - box.top - margin.top];
    const factor = clamp(view.zoom * wanted, 1, MAX_ZOOM) / view.zoom;
    moveView(view.zoom * factor, x - (x - view.x) * factor, y - (y - view.y) * factor);
  }

  function moveView(zoom, x, y) {
    const { width, height } = inner();
    view.zoom = clamp(zoom, 1, MAX_ZOOM);
    view.x = clamp(x, width * (1 - view.zoom), 0);
    view.y = clamp(y, height * (1 - view.zoom), 0);
    redraw();
  }

  const disposers = [
    usePointer(plot, { nodeAt, store, view, moveView, zoomAt }),
    store.subscribe(["graph", "visible"], arrange),
    store.subscribe(["graph"], () => moveView(1, 0, 0)),
    store.subscribe(["selected", "wholeGroup", "pinned", "linkType", "sign", "theme", "grouping", "labels"], redraw),
    store.subscribe(["hovered"], redrawHover),
    watchSize(plot, (next) => {
      size = next;
      moveView(view.zoom, view.x, view.y);
      arrange();
    }),
  ];
  return () => disposers.forEach((dispose) => dispose());
}

function watchSize(element, listener) {
  const observer = new ResizeObserver(() => listener({ width: element.clientWidth, height: element.clientHeight }));
  observer.observe(element);
  return () => observer.disconnect();
}

/** Hover, click, drag to pan, wheel to zoom, double click to see all. */
function usePointer(plot, { nodeAt, store, view, moveView, zoomAt }) {
  let press = null;
  const listeners = {
    pointermove(event) {
      if (press && (event.buttons & 1)) {
        const [dx, dy] = [event.clientX - press.x, event.clientY - press.y];
        press.moved = press.moved || Math.hypot(dx, dy) > 4;
        if (press.moved) moveView(view.zoom, press.viewX + dx, press.viewY + dy);
      } else if (!event.shiftKey) hover(store, nodeAt(event));
      plot.classList.toggle("over-node", store.get("hovered") !== null);
    },
    pointerdown(event) {
      if (event.button !== 0) return;
      press = { x: event.clientX, y: event.clientY, viewX: view.x, viewY: view.y, moved: false };
    },
    pointerup(event) {
      const moved = press?.moved ?? true;
      press = null;
      if (moved || event.button !== 0) return;
      const id = nodeAt(event);
      if (id) click(store, id, event);
      else select(store, null);
    },
    pointerleave: (event) => event.shiftKey || hover(store, null),
    dblclick: () => moveView(1, 0, 0),
    wheel(event) {
      event.preventDefault();
      zoomAt(event, Math.exp(-event.deltaY * 0.0022));
    },
  };
  for (const [name, listener] of Object.entries(listeners)) plot.addEventListener(name, listener, { passive: name !== "wheel" });
  return () => Object.entries(listeners).forEach(([name, listener]) => plot.removeEventListener(name, listener));
}

function fontSize() {
  return Number.parseFloat(getComputedStyle(document.body).fontSize) || 13;
}

/** Room for the labels around the plot, in pixels at the page's font size; slanted labels need as much as their text. */
function margins(graph, slantedColumns = []) {
  const em = fontSize();
  const longest = (texts) => Math.min(LABEL_LENGTH, Math.max(3, ...texts.map((text) => Array.from(showToken(text).trim()).length)));
  const slanted = (texts) => em * (0.7 + 0.4 * longest(texts));
  const outputs = graph ? graph.nodes.filter((node) => node.kind === "logit").map((node) => node.logitToken ?? "") : [];
  const tokens = slantedColumns.map((column) => graph.tokens[column.position] ?? "");
  const beyond = slantedColumns.map((column, i) => slanted([tokens[i]]) - column.x - column.width / 2);
  return {
    left: Math.max(3.5 * em, ...beyond),
    right: slanted(outputs),
    top: slanted(outputs) + 0.2 * em,
    bottom: Math.max(2.2 * em, tokens.length ? slanted(tokens) + 0.3 * em : 0),
  };
}

function axisLabels(scene) {
  return [...rowLabels(scene), ...tokenLabels(scene), ...logitLabels(scene)];
}

function placed(className, x, y, text, title) {
  return h("span", { class: className, style: { left: `${x.toFixed(1)}px`, top: `${y.toFixed(1)}px` }, title }, text);
}

function rowLabels({ layout, project, plot }) {
  return layout.rows.flatMap((row) => {
    const [, y] = project(0, row.centre);
    const inside = y > plot.y - 2 && y < plot.y + plot.height + 2;
    return row.label && inside ? [placed("row-label", plot.x - 8, y, row.label)] : [];
  });
}

function tokenLabels({ graph, layout, project, plot }) {
  const y = plot.y + plot.height + 8;
  let free = -Infinity;
  return layout.columns.flatMap((column) => {
    const text = graph.tokens[column.position];
    const [left] = project(column.x, 0);
    const [right] = project(column.x + column.width, 0);
    const x = (left + right) / 2;
    if (text === undefined || x < plot.x || x > plot.x + plot.width || x - free < 13) return [];
    free = x;
    const flat = isFlat({ tokens: graph.tokens }, column, right - left);
    const place = `Token ${column.position}: ${text}`;
    return [placed(`token-label${flat ? " flat" : ""}`, x, y, tokenLabel(text, flat ? 40 : LABEL_LENGTH), place)];
  });
}

/** Whether a column's token can be written level. */
function isFlat({ tokens }, column, width) {
  return width > 7.6 * Array.from(showToken(tokens[column.position] ?? "")).length + 8;
}

function logitLabels({ graph, layout, visible, project, plot }) {
  const logits = graph.nodes.filter((node) => node.kind === "logit" && visible[node.index]);
  logits.sort((a, b) => b.probability - a.probability);
  const taken = [];
  return logits.flatMap((node) => {
    const [x, y] = project(layout.x[node.index], layout.y[node.index]);
    if (x < plot.x || x > plot.x + plot.width || y < plot.y || taken.some((other) => Math.abs(other - x) < 13)) return [];
    taken.push(x);
    return [placed("logit-label", x, y - 8, tokenLabel(node.logitToken || node.id, LABEL_LENGTH), node.clerp)];
  });
}

function showTooltip(tooltip, scene, store, size) {
  const node = scene.graph.nodes[scene.hovered];
  tooltip.hidden = !node || !scene.visible[scene.hovered];
  if (tooltip.hidden) return;
  const [x, y] = scene.project(scene.layout.x[node.index], scene.layout.y[node.index]);
  const facts = [
    node.activation !== null && `activation ${number(node.activation)}`,
    node.influence !== null && `cumulative influence ${number(node.influence)}`,
    ...linkFacts(scene, node),
  ].filter(Boolean);
  tooltip.replaceChildren(
    h("strong", {}, nodeLabel(node, store.get("labels"), store.get("featureLabels")[node.code])),
    h("span", {}, node.kind === "feature" ? `${nodePlace(node)} · ${node.feature}` : `${layerLabel(node)} · ${nodePlace(node)}`),
    ...facts.map((fact) => h("span", { class: "fact" }, fact)),
  );
  const onRight = x > size.width * 0.62;
  tooltip.style.left = onRight ? "" : `${x + 14}px`;
  tooltip.style.right = onRight ? `${size.width - x + 14}px` : "";
  tooltip.style.top = `${clamp(y - 12, 4, Math.max(4, size.height - tooltip.offsetHeight - 6))}px`;
}

function linkFacts({ graph, selected }, node) {
  if (selected < 0 || selected === node.index) return [];
  const { source, target, share } = graph.links;
  const into = [...graph.inputs(selected)].find((k) => source[k] === node.index);
  const out = [...graph.outputs(selected)].find((k) => target[k] === node.index);
  return [
    into !== undefined && `${signedPercent(share[into])} of the selection's input`,
    out !== undefined && `gets ${signedPercent(share[out])} of its input from the selection`,
  ];
}
