/* Two numbers of every node against each other. Draw around points to mark them, then pin them. */

import { click, hover, pinAll } from "../actions.js";
import { h, watchSize } from "../dom.js";
import { nodeLabel, nodePlace, number } from "../format.js";
import { nearestLookup } from "../layout.js";
import { attributeName, attributes, axis, isInside } from "../scatter-data.js";
import { fontSize, palette } from "../theme.js";
import { drawScatter } from "./scatter-draw.js";

const REACH = 14;
const DEFAULTS = ["activation", "influence"];

export function scatter(element, store, { attributes: file }) {
  const parts = makeParts(store);
  element.append(parts.root);
  const plot = createPlot(store, parts);
  usePointer(parts.plot, store, plot);
  parts.pin.addEventListener("click", () => {
    pinAll(store, plot.marked().map((node) => node.id));
    plot.mark([]);
  });
  parts.clear.addEventListener("click", () => plot.mark([]));
  const disposers = [
    store.subscribe(["shown"], () => store.get("shown").includes("scatter") && file.ask()),
    store.subscribe(["graph", "attributes", "scatter", "visible", "shown"], plot.arrange),
    store.subscribe(["selected", "hovered", "pinned", "theme"], plot.draw),
    watchSize(parts.plot, plot.arrange),
  ];
  plot.arrange();
  return () => disposers.forEach((dispose) => dispose());
}

function makeParts(store) {
  const choose = (name) =>
    h("select", {
      class: "small-select",
      "aria-label": name === "x" ? "Horizontal axis" : "Vertical axis",
      onchange: (event) =>
        store.set({ scatter: Object.freeze({ ...store.get("scatter"), [name]: event.target.value }) }),
    });
  const [y, x] = [choose("y"), choose("x")];
  const count = h("span", { class: "muted count", role: "status" });
  const pin = h("button", { class: "small", type: "button", hidden: true });
  const clear = h("button", { class: "small quiet", type: "button", hidden: true }, "Clear");
  const canvas = h("canvas", { class: "layer", role: "img", "aria-label": "Scatter plot of the visible nodes" });
  const tip = h("div", { class: "scatter-tip", hidden: true });
  const plot = h("div", { class: "plot scatter-plot" }, canvas, tip);
  const tools = h("div", { class: "list-head" }, y, h("span", { class: "muted" }, "over"), x, count, pin, clear);
  return { x, y, count, pin, clear, canvas, tip, plot, root: h("div", { class: "scatter" }, tools, plot) };
}

function createPlot(store, parts) {
  let [known, choices] = [null, []];
  let points = { xs: [], ys: [], axes: null };
  let nearest = () => -1;
  let marks = new Set();
  let lasso = [];

  /** What numbers the nodes have, looked for once the panel is seen. */
  function read() {
    const graph = store.get("graph");
    const raw = store.get("attributes");
    if (graph === known?.graph && raw === known.raw) return;
    [known, choices] = [{ graph, raw }, graph ? attributes(graph, raw) : []];
    marks = new Set();
    for (const select of [parts.x, parts.y])
      select.replaceChildren(...choices.map(({ name, title }) => h("option", { value: name }, title)));
  }

  function chosen() {
    const asked = store.get("scatter");
    return ["x", "y"].map((end, i) => {
      const named = choices.find(({ name }) => name === attributeName(asked[end]));
      return named ?? choices.find(({ name }) => name === DEFAULTS[i]) ?? choices[Math.min(i, choices.length - 1)];
    });
  }

  function arrange() {
    if (!store.get("shown").includes("scatter")) return;
    read();
    const [graph, visible] = [store.get("graph"), store.get("visible")];
    const size = { width: parts.plot.clientWidth, height: parts.plot.clientHeight };
    if (!graph || size.width === 0 || choices.length === 0) return;
    const [x, y] = chosen();
    parts.x.value = x.name;
    parts.y.value = y.name;
    const drawn = (i) => visible[i] && !Number.isNaN(x.values[i] + y.values[i]);
    const seen = (values) => values.map((value, i) => (drawn(i) ? value : Number.NaN));
    points = place(seen(x.values), seen(y.values), size, [x.title, y.title]);
    nearest = nearestLookup(points.xs, points.ys);
    mark([...marks].filter((i) => !Number.isNaN(points.xs[i])));
  }

  function draw() {
    const graph = store.get("graph");
    if (!graph || !points.axes) return;
    const index = (id) => graph.index(id);
    drawScatter(parts.canvas, {
      ...points,
      graph,
      marks,
      lasso,
      palette: palette(),
      em: fontSize(),
      pinned: new Set(store.get("pinned").map(index)),
      selected: index(store.get("selected")),
      hovered: index(store.get("hovered")),
    });
    showTip();
  }

  function showTip() {
    const node = store.get("graph").node(store.get("hovered"));
    const at = node ? points.xs[node.index] : Number.NaN;
    parts.tip.hidden = Number.isNaN(at) || at === undefined;
    if (parts.tip.hidden) return;
    const [x, y] = chosen();
    const values = [x, y].map(({ title, values: all }) => `${title} ${number(all[node.index])}`);
    const name = nodeLabel(node, store.get("labels"), store.get("featureLabels")[node.code]);
    parts.tip.replaceChildren(
      h("strong", { dir: "auto" }, name),
      h("span", { class: "muted" }, [nodePlace(node), ...values].join(" · ")),
    );
  }

  function mark(indices) {
    marks = new Set(indices);
    const shown = points.xs.reduce((sum, x) => sum + (Number.isNaN(x) ? 0 : 1), 0);
    parts.count.textContent = marks.size ? `${marks.size} marked` : `${shown.toLocaleString("en")} nodes`;
    parts.pin.hidden = parts.clear.hidden = marks.size === 0;
    parts.pin.textContent = `Pin ${marks.size}`;
    draw();
  }

  return {
    arrange,
    draw,
    mark,
    nodeAt: (x, y) => store.get("graph")?.nodes[nearest(x, y, REACH)]?.id ?? null,
    marked: () => [...marks].map((i) => store.get("graph").nodes[i]),
    setLasso(polygon, done) {
      lasso = done ? [] : polygon;
      if (!done) return draw();
      const inside = [...points.xs.keys()].filter((i) => isInside(polygon, points.xs[i], points.ys[i]));
      mark(inside);
    },
  };
}

function place(x, y, { width, height }, titles) {
  const em = fontSize();
  const frame = { x: 3.6 * em, y: 0.8 * em, width: width - 4.6 * em, height: height - 4 * em };
  const axes = { x: { ...axis(x), title: titles[0] }, y: { ...axis(y), title: titles[1] }, frame, width, height };
  const along = (value, { low, high }) => (value - low) / (high - low);
  const xs = Array.from(x, (value) => frame.x + along(value, axes.x) * frame.width);
  const ys = Array.from(y, (value) => frame.y + (1 - along(value, axes.y)) * frame.height);
  return { xs, ys, axes };
}

/** A press without a move is a click; with one it draws around points. */
function usePointer(element, store, plot) {
  let path = null;
  const at = (event) => {
    const box = element.getBoundingClientRect();
    return [event.clientX - box.left, event.clientY - box.top];
  };
  element.addEventListener("pointerdown", (event) => {
    if (event.button !== 0) return;
    path = [at(event)];
    element.setPointerCapture(event.pointerId);
  });
  element.addEventListener("pointermove", (event) => {
    if (!path) return hover(store, plot.nodeAt(...at(event)));
    path.push(at(event));
    if (path.length > 2) plot.setLasso(path, false);
  });
  element.addEventListener("pointerup", (event) => {
    if (!path) return;
    const drawn = path;
    path = null;
    if (extent(drawn) > 8) return plot.setLasso(drawn, true);
    plot.setLasso([], false);
    const id = plot.nodeAt(...at(event));
    if (id) click(store, id, event);
  });
  element.addEventListener("pointerleave", () => hover(store, null));
}

function extent(path) {
  const [[x0, y0]] = path;
  return Math.max(...path.map(([x, y]) => Math.hypot(x - x0, y - y0)));
}
