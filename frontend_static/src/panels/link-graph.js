/* The link graph: tokens as columns, layers as rows, links of the selection. */

import { selectedIndices } from "../actions.js";
import { h, watchSize } from "../dom.js";
import { maxThreshold } from "../graph.js";
import { layoutGraph, nearestLookup } from "../layout.js";
import { fontSize, palette } from "../theme.js";
import { createViewport } from "../viewport.js";
import { labelElements, painted, saveFigure } from "../figures.js";
import { drawGraph, drawHover, planScene, prepare } from "./link-graph-draw.js";
import { createGl } from "./link-graph-gl.js";
import { areFlat, axisLabels, margins, showTooltip } from "./link-graph-labels.js";
import { useGraphPointer } from "./link-graph-pointer.js";

const REACH = 30;
const MANY_NODES = 1200;
const GL_BACKGROUND = 3000;
const LINKS_WHILE_MOVING = { gl: 400, canvas: 120 };
const STILL_AFTER = 140;
const DRAWN_FROM = ["selected", "path", "wholeGroup", "pinned", "linkType", "sign", "theme", "grouping", "labels"];

export function linkGraph(element, store, { figures }) {
  const parts = makeParts();
  element.append(parts.plot);
  const viewport = createViewport();
  const picture = createPicture(store, parts, viewport);
  figures.set("link-graph", (kind) => saveFigure(store, picture.figure(), kind, "link-graph"));
  const disposers = [
    useGraphPointer(parts.plot, store, viewport, { nodeAt: picture.nodeAt, redraw: picture.move }),
    store.subscribe(["slug"], viewport.reset),
    store.subscribe(["graph", "visible"], picture.arrange),
    store.subscribe(["pruned"], picture.draw),
    store.subscribe(DRAWN_FROM, picture.draw),
    store.subscribe(["hovered", "everyAttribute", "attributes"], picture.drawHovered),
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
  return { base, glass, top, labels, tooltip, plot: h("div", { class: "plot" }, base, glass, top, labels, tooltip) };
}

/** The drawing and its layout: `arrange` after a change of size or nodes, `draw` otherwise, at most once per frame. */
function createPicture(store, parts, viewport) {
  let size = { width: 0, height: 0 };
  let [layout, arranged] = [null, null];
  let nearest = () => -1;
  let pending = 0;
  let plan = null;
  let moving = false;
  let rest = 0;
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
    nearest = nearestLookup(layout.x, layout.y);
    draw();
  }

  /** After a change of what is shown. */
  function draw() {
    plan = null;
    request();
  }

  /** After a change of the viewport: fewer links until it rests. */
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
      paint(scene);
      showHover(scene);
      parts.labels.replaceChildren(...axisLabels(scene));
    });
  }

  function paint(scene) {
    const gl = painter.current();
    const background = gl ? GL_BACKGROUND : undefined;
    if (plan === null || plan.gl !== gl) {
      plan = { ...planScene(scene, background), gl };
      gl?.upload(scene, plan);
    }
    const most = moving ? LINKS_WHILE_MOVING[gl ? "gl" : "canvas"] : Infinity;
    if (gl) gl.draw(scene, size, most);
    else drawGraph(prepare(parts.base, size.width, size.height), scene, plan, most);
  }

  function drawHovered() {
    if (!layout || !store.get("graph")) return;
    const scene = sceneOf(store, layout, viewport);
    showHover(scene);
    showTooltip(parts.tooltip, scene, store, size);
  }

  /** Every canvas that is shown costs each frame of the page, so that this one is there for a hovered node alone. */
  function showHover(scene) {
    parts.top.hidden = scene.hovered < 0;
    if (!parts.top.hidden) drawHover(prepare(parts.top, size.width, size.height), scene);
  }

  function nodeAt(x, y) {
    const found = nearest(...viewport.unproject(x, y), REACH / viewport.zoom());
    return store.get("graph")?.nodes[found]?.id ?? null;
  }

  function figure() {
    if (!layout) return null;
    const scene = { ...sceneOf(store, layout, viewport), hovered: -1 };
    const elements = [...painted((context) => drawGraph(context, scene)), ...labelElements(axisLabels(scene))];
    return { ...size, elements };
  }

  return { arrange, draw, move, drawHovered, nodeAt, figure };
}

/** WebGL where it works. Without it, after its context is lost, or where it fails, all is painted in two dimensions. */
function createPainter({ base, glass }, redraw) {
  let gl = null;
  const use = (found) => {
    gl = found;
    glass.dataset.painter = gl ? "webgl" : "canvas";
    glass.hidden = !gl;
    base.hidden = Boolean(gl);
  };
  const begin = () => {
    try {
      use(createGl(glass));
    } catch {
      use(null);
    }
  };
  glass.addEventListener("webglcontextlost", (event) => {
    event.preventDefault();
    use(null);
    redraw();
  });
  glass.addEventListener("webglcontextrestored", () => {
    begin();
    redraw();
  });
  begin();
  return { current: () => gl };
}

/** The plot without the room for its labels, which depends on whether the columns are wide enough for level text. */
function frameFor(graph, visible, { width, height }) {
  const inside = (margin) => ({
    x: margin.left,
    y: margin.top,
    width: width - margin.left - margin.right,
    height: height - margin.top - margin.bottom,
  });
  const { columns } = layoutGraph(graph, visible, inside(margins(graph)).width, 1);
  return inside(margins(graph, areFlat(graph, columns) ? [] : columns));
}

/** Everything that the drawing functions need, as plain values. */
function sceneOf(store, layout, viewport) {
  const graph = store.get("pruned");
  const visible = store.get("visible");
  const indices = (ids) => new Set((ids ?? []).map(graph.index).filter((index) => index >= 0));
  const crowded = visible.reduce((sum, byte) => sum + byte, 0) > MANY_NODES;
  const grown = Math.min(1.8, Math.sqrt(viewport.zoom()));
  return {
    graph,
    layout,
    visible,
    project: viewport.project,
    zoom: viewport.zoom(),
    plot: viewport.frame(),
    palette: palette(),
    selected: graph.index(store.get("selected")),
    selection: new Set(selectedIndices(store)),
    hovered: graph.index(store.get("hovered")),
    pinned: indices(store.get("pinned")),
    marked: indices(store.get("grouping")),
    linkType: store.get("linkType"),
    sign: store.get("sign"),
    path: store.get("path"),
    limit: maxThreshold(graph) ?? 1,
    radius: ((crowded ? 2.6 : 4) * grown * fontSize()) / 13,
  };
}
