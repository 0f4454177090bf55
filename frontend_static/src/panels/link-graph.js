/* The link graph: tokens as columns, layers as rows, links of the selection. */

import { selectedIndices } from "../actions.js";
import { h, watchSize } from "../dom.js";
import { nodeLabel } from "../format.js";
import { matchesQuery, maxThreshold } from "../graph.js";
import { layoutGraph, nearestLookup } from "../layout.js";
import { fontSize, palette, printPalette } from "../theme.js";
import { createViewport } from "../viewport.js";
import { labelElements, painted, saveFigure } from "../figures.js";
import { drawGraph } from "./link-graph-draw.js";
import { areFlat, axisLabels, margins, placeLabels, showTooltip } from "./link-graph-labels.js";
import { plotLegend } from "./link-graph-legend.js";
import { createPainter } from "./link-graph-painter.js";
import { useGraphPointer } from "./link-graph-pointer.js";

const REACH = 30;
const MOST_FOUND = 200;
const MANY_NODES = 1200;
const STILL_AFTER = 140;
const DRAWN_FROM = ["query", "selected", "path", "wholeGroup", "pinned", "linkType", "sign", "theme", "grouping", "labels"];

export function linkGraph(element, store, { figures }) {
  const parts = makeParts();
  element.append(parts.plot);
  const viewport = createViewport();
  const picture = createPicture(store, parts, viewport);
  figures.set("link-graph", (options) => saveFigure(store, picture.figure(), options, "link-graph"));
  const disposers = [
    useGraphPointer(parts.plot, store, viewport, { nodeAt: picture.nodeAt, redraw: picture.move }),
    store.subscribe(["slug"], viewport.reset),
    store.subscribe(["graph", "visible"], picture.arrange),
    store.subscribe(["pruned"], picture.draw),
    store.subscribe(["graph", "failed"], () => showWaiting(parts.waiting, store)),
    store.subscribe(DRAWN_FROM, picture.draw),
    store.subscribe(["hovered", "lit", "everyAttribute", "attributes"], picture.drawHovered),
    watchSize(parts.plot, picture.arrange),
  ];
  return () => disposers.forEach((dispose) => dispose());
}

function makeParts() {
  const image = { class: "layer", role: "img", "aria-label": "Attribution graph: tokens by layers" };
  const base = h("canvas", image);
  const glass = h("canvas", { ...image, "data-painter": "canvas" });
  const top = h("canvas", { class: "layer", hidden: true });
  const labels = h("div", { class: "plot-labels", "aria-hidden": "true" });
  const tooltip = h("div", { class: "tooltip", role: "status", hidden: true });
  const waiting = h("div", { class: "waiting", role: "status" }, h("progress", { "aria-label": "Reading the graph" }), h("span", {}, "Reading the graph …"));
  const plot = h("div", { class: "plot" }, base, glass, top, labels, plotLegend(), tooltip, waiting);
  return { base, glass, top, labels, tooltip, waiting, plot };
}

function showWaiting(waiting, store) {
  waiting.hidden = store.get("graph") !== null;
  const [bar, words] = waiting.children;
  bar.hidden = store.get("failed");
  words.textContent = store.get("failed") ? "No graph is shown." : "Reading the graph …";
}

/** The drawing and its layout: `arrange` after a change of size or nodes, `draw` otherwise, at most once per frame. */
function createPicture(store, parts, viewport) {
  let size = { width: 0, height: 0 };
  let [layout, arranged] = [null, null];
  let nearest = () => -1;
  let [pending, moving, rest, named] = [0, false, 0, -1];
  const painter = createPainter(parts, () => draw());

  function arrange() {
    const graph = store.get("graph");
    size = { width: parts.plot.clientWidth, height: parts.plot.clientHeight };
    if (!graph || size.width === 0) return;
    const from = [graph.nodes, store.get("visible"), size.width, size.height, fontSize()];
    if (arranged?.every((value, i) => value === from[i])) return draw();
    arranged = from;
    viewport.setFrame(frameFor(graph, store.get("visible"), size));
    const { width, height } = viewport.frame();
    layout = layoutGraph(graph, store.get("visible"), width, height);
    draw();
  }

  /** After a change of what is shown. */
  function draw() {
    painter.forget();
    request();
  }

  /** After a change of the viewport: less is drawn, and nothing beside the drawing, until it rests. */
  function move() {
    moving = true;
    window.clearTimeout(rest);
    rest = window.setTimeout(() => {
      moving = false;
      request();
    }, STILL_AFTER);
    request();
  }

  function request() {
    cancelAnimationFrame(pending);
    pending = requestAnimationFrame(() => {
      if (!layout || !store.get("graph")) return;
      const scene = sceneOf(store, layout, viewport);
      painter.paint(scene, size, moving);
      placeLabels(parts.labels, axisLabels(scene));
      showHovered(scene);
    });
  }

  function drawHovered() {
    if (!layout || !store.get("graph")) return;
    const scene = sceneOf(store, layout, viewport);
    const column = scene.graph.nodes[scene.hovered]?.position ?? -1;
    if (column !== named) placeLabels(parts.labels, axisLabels(scene));
    named = column;
    showHovered(scene);
  }

  function showHovered(scene) {
    painter.hover(moving ? null : scene, size);
    if (moving) parts.tooltip.hidden = true;
    else showTooltip(parts.tooltip, scene, store, size);
  }

  function nodeAt(x, y) {
    if (!layout) return null;
    const [across, down] = viewport.zooms();
    if (nearest.ratio !== across / down || nearest.layout !== layout) {
      const ratio = across / down;
      nearest = Object.assign(nearestLookup(layout.x.map((value) => value * ratio), layout.y), { ratio, layout });
    }
    const [u, v] = viewport.unproject(x, y);
    const found = nearest(u * nearest.ratio, v, REACH / down);
    return store.get("graph")?.nodes[found]?.id ?? null;
  }

  function figure() {
    if (!layout) return null;
    const scene = { ...sceneOf(store, layout, viewport), hovered: -1, palette: printPalette() };
    const elements = [...painted((context) => drawGraph(context, scene)), ...labelElements(axisLabels(scene))];
    return { ...size, elements };
  }

  return { arrange, draw, move, drawHovered, nodeAt, figure };
}

/** The plot without the room for its labels, which depends on whether the columns are wide enough for level text. */
export function frameFor(graph, visible, { width, height }) {
  const inside = (margin) => ({
    x: margin.left,
    y: margin.top,
    width: width - margin.left - margin.right,
    height: height - margin.top - margin.bottom,
  });
  const { columns } = layoutGraph(graph, visible, inside(margins(graph)).width, 1);
  return inside(margins(graph, areFlat(graph, columns) ? [] : columns));
}

/** The nodes that the search field finds, unless it finds so many that marking them would say nothing. */
function foundNodes(store, graph, visible) {
  const query = store.get("query").trim();
  if (query === "") return new Set();
  const [labels, proposed] = [store.get("labels"), store.get("featureLabels")];
  const hits = graph.nodes.filter((node) => visible[node.index] && matchesQuery(node, nodeLabel(node, labels, proposed[node.code]), query));
  return new Set(hits.length <= MOST_FOUND ? hits.map((node) => node.index) : []);
}

/** Everything that the drawing functions need, as plain values. */
function sceneOf(store, layout, viewport) {
  const graph = store.get("pruned");
  const visible = store.get("visible");
  const indices = (ids) => new Set((ids ?? []).map(graph.index).filter((index) => index >= 0));
  const crowded = visible.reduce((sum, byte) => sum + byte, 0) > MANY_NODES;
  const scale = fontSize() / 13;
  const [across, down] = viewport.zooms();
  const grown = Math.min(1.8, (across * down) ** 0.25);
  return {
    graph,
    layout,
    visible,
    project: viewport.project,
    zoom: [across, down],
    plot: viewport.frame(),
    palette: palette(),
    selected: graph.index(store.get("selected")),
    selection: new Set(selectedIndices(store)),
    hovered: graph.index(store.get("hovered")),
    lit: indices(store.get("lit")),
    pinned: indices(store.get("pinned")),
    marked: indices(store.get("grouping")),
    found: foundNodes(store, graph, visible),
    linkType: store.get("linkType"),
    sign: store.get("sign"),
    path: store.get("path"),
    limit: maxThreshold(graph) ?? 1,
    scale,
    radius: (crowded ? 2.6 : 4) * grown * scale,
  };
}
