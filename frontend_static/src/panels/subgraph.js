/* The pinned nodes as boxes that can be grouped, named and moved, and what flows between them. */

import { moveBoxes, nameGroup, rename, selectedIndices, selectFlow, toggleExpanded } from "../actions.js";
import { raise } from "../arrangement.js";
import { editInPlace, h, icon, replaceKeepingFocus, svg, watchSize } from "../dom.js";
import { saveFigure } from "../figures.js";
import { flowLines } from "../flow-route.js";
import { signedPercent } from "../format.js";
import { css, signedColour } from "../scales.js";
import { BOX, FAINT, layOut, mainFlows, toUnits } from "../subgraph-layout.js";
import { boxEdges, shownBoxes } from "../supernodes.js";
import { fontSize, palette } from "../theme.js";
import { draftBar } from "./draft-bar.js";
import { boxElement, boxName, markBoxes } from "./subgraph-box.js";
import { flowWidth, subgraphFigure } from "./subgraph-figure.js";
import { createView } from "./subgraph-view.js";

const BUILT_FROM = ["graph", "pruned", "pinned", "supernodes", "labels", "positions", "boxFrame", "expanded", "theme", "featureLabels", "notes", "drafts"];
const MARKED_FROM = ["selected", "wholeGroup", "grouping", "hovered", "flow"];

export function subgraph(element, store, { figures }) {
  const parts = makeParts();
  const bar = draftBar(store);
  element.append(bar.element, parts.plot);
  const picture = createPicture(store, parts);
  figures.set("subgraph", (options) => saveFigure(store, picture.figure(options), options, "subgraph"));
  const disposers = [
    store.subscribe(BUILT_FROM, picture.build),
    store.subscribe(MARKED_FROM, picture.mark),
    store.subscribe(["everyFlow", "flowWeights"], picture.drawFlows),
    store.subscribe(["editing"], picture.editName),
    store.subscribe(["naming"], picture.nameNew),
    store.subscribe(["slug", "subgraphName"], picture.refit),
    watchSize(parts.plot, picture.resize),
    picture.dispose,
    bar.dispose,
  ];
  return () => disposers.forEach((dispose) => dispose());
}

function makeParts() {
  const edges = svg("svg", { class: "flows", "aria-hidden": "true" });
  const frames = h("div", { class: "frames" });
  const layer = h("div", { class: "boxes", role: "group", "aria-label": "Pinned nodes" });
  const weights = h("div", { class: "flow-weights", "aria-hidden": "true" });
  const empty = emptyState();
  const drawing = h("div", { class: "drawing" }, frames, edges, layer, weights);
  const plot = h("div", { class: "plot subgraph-plot" }, drawing, empty);
  return { edges, frames, layer, weights, drawing, empty, plot };
}

function emptyState() {
  const keys = ["Pin with ", h("kbd", {}, "Ctrl"), "-click or ", h("kbd", {}, "p"), "; hold ", h("kbd", {}, "g")];
  return h(
    "div",
    { class: "empty" },
    h("p", {}, "Pinned nodes appear here."),
    h("p", { class: "muted" }, ...keys, " and click nodes to group them into a supernode."),
  );
}

/** `build` makes the boxes anew; `mark` only changes classes, since a click must not replace what a double click waits for. */
function createPicture(store, parts) {
  let [boxes, flows, lines] = [[], [], []];
  let laid = layOut([], []);
  let [built, late, shape] = [null, false, ""];
  let [drawnFlows, drawnFrom, faded, themed] = ["", null, false, ""];
  const view = createView(parts.plot, parts.drawing);

  function build() {
    const graph = store.get("graph");
    late = graph === built && parts.layer.querySelector(".edit-field") !== null;
    if (late) return;
    const panel = view.panel(fontSize() / 13);
    if (!graph || panel === null) return;
    built = graph;
    boxes = shownBoxes(store);
    flows = boxEdges(graph, boxes, store.get("pruned")).filter(({ weight }) => Math.abs(weight) >= FAINT);
    laid = layOut(boxes, flows, { positions: store.get("positions"), frame: store.get("boxFrame"), panel });
    shape = shapeOf(panel);
    parts.empty.hidden = boxes.length > 0;
    drawBoxes();
    drawFrames();
    mark();
    view.fit(laid);
  }

  /** Another size of the panel asks for other rows where nobody has dragged anything, and for another zoom in any case. */
  function resize() {
    const panel = view.panel(fontSize() / 13);
    if (panel === null) return;
    const dragged = Object.keys(store.get("positions")).length > 0;
    if (built === store.get("graph") && (dragged || shape === shapeOf(panel))) return view.fit(laid);
    build();
  }

  function drawBoxes() {
    const elements = boxes.map((box, i) => boxElement(store, box, laid.places[i], { drag: drag(i), move: walk(i), askName: () => renameBox(i) }));
    replaceKeepingFocus(parts.layer, ...elements);
    oneTabStop();
  }

  function drawFrames() {
    parts.frames.replaceChildren(...laid.frames.map((frame) => frameElement(store, frame)));
  }

  /** The whole panel is one stop of the Tab key; arrow keys go from box to box. */
  function oneTabStop(at = 0) {
    [...parts.layer.children].forEach((element, i) => element.setAttribute("tabindex", i === at ? "0" : "-1"));
  }

  const walk = (i) => (step) => {
    const next = neighbour(laid.places, i, step);
    if (next < 0) return;
    oneTabStop(next);
    parts.layer.children[next].focus({ preventScroll: true });
    view.show(laid.places[next]);
  };

  function mark() {
    markBoxes(store, boxes, parts.layer);
    drawFlows();
  }

  /** Which flows are drawn: the main ones or all, and every one of the box or flow that is selected or under the pointer. */
  function drawFlows() {
    const graph = store.get("graph");
    if (!graph) return;
    const chosen = new Set(selectedIndices(store));
    const hovered = graph.index(store.get("hovered"));
    const own = boxes.map(({ members }) => members.some((node) => chosen.has(node.index)));
    const near = boxes.map(({ members }) => members.some((node) => node.index === hovered));
    const main = store.get("everyFlow") ? null : mainFlows(flows, boxes.length);
    const isFlow = ({ from, to }) => store.get("flow")?.from === boxes[from].key && store.get("flow")?.to === boxes[to].key;
    const shown = flows.map((flow, i) => i).filter((i) => {
      const { from, to } = flows[i];
      return main === null || main.has(i) || own[from] || own[to] || near[from] || near[to] || isFlow(flows[i]);
    });
    const same = `${shown}` === drawnFlows && laid === drawnFrom;
    [drawnFlows, drawnFrom] = [`${shown}`, laid];
    if (!same) lines = linesOf(shown);
    const focus = own.includes(true) || lines.some(({ flow }) => isFlow(flow));
    if (same && !store.get("flowWeights") && !focus && !faded && store.get("theme") === themed) return;
    themed = store.get("theme");
    faded = focus;
    parts.edges.setAttribute("viewBox", `0 0 ${laid.width} ${laid.height}`);
    parts.edges.style.width = `${laid.width}px`;
    parts.edges.style.height = `${laid.height}px`;
    const isFaded = ({ flow }) => focus && !own[flow.from] && !own[flow.to] && !isFlow(flow);
    const drawn = lines.map((line) => flowElement(line, { faded: isFaded(line), chosen: isFlow(line.flow), choose: () => choose(line.flow) }));
    parts.edges.replaceChildren(...drawn.reverse());
    drawWeights(lines, isFlow);
    store.set({ flowCount: { shown: shown.length, all: flows.length } });
  }

  function linesOf(shown) {
    const routes = new Map(shown.flatMap((i, k) => (laid.routes.has(i) ? [[k, laid.routes.get(i)]] : [])));
    return flowLines(shown.map((i) => flows[i]), laid.places, routes).map((line, k) => ({ ...line, flow: flows[shown[k]] }));
  }

  const choose = ({ from, to }) => {
    raise(store, "connections");
    selectFlow(store, { from: boxes[from].key, to: boxes[to].key });
  };

  function drawWeights(candidates, isFlow) {
    const wanted = store.get("flowWeights") ? candidates : candidates.filter(({ flow }) => isFlow(flow));
    const taken = [];
    const texts = wanted.flatMap(({ middle, flow }) => {
      const clear = taken.every(({ x, y }) => Math.abs(x - middle.x) > 46 || Math.abs(y - middle.y) > 15);
      const hidden = laid.places.some(({ x, y }) => Math.abs(x - middle.x) < BOX.width / 2 && Math.abs(y - middle.y) < BOX.height / 2);
      if (!clear || hidden) return [];
      taken.push(middle);
      const style = { left: `${middle.x}px`, top: `${middle.y}px` };
      return [h("span", { class: `flow-weight ${flow.weight < 0 ? "negative" : "positive"}`, style }, signedPercent(flow.weight))];
    });
    parts.weights.replaceChildren(...texts);
  }

  const drag = (i) => (dx, dy, finished) => {
    const scale = finished === "keys" ? 1 : view.scale();
    const at = laid.places[i];
    drawnFrom = null;
    laid.places[i] = { ...at, x: at.x + dx / scale, y: at.y + dy / scale };
    laid.routes = new Map([...laid.routes].filter(([k]) => flows[k].from !== i && flows[k].to !== i));
    Object.assign(parts.layer.children[i].style, { left: `${laid.places[i].x}px`, top: `${laid.places[i].y}px` });
    drawFlows();
    if (!finished) return;
    const { positions, frame } = toUnits(boxes, laid.places);
    const dropped = laid.places[i];
    view.hold();
    moveBoxes(store, positions, frame, finished === "keys" ? `move ${boxes[i].key}` : null);
    const kept = laid.places[i];
    view.moveBy(dropped.x - kept.x, dropped.y - kept.y);
  };

  /** The key that edits labels renames a supernode that is selected as a whole. */
  function editName() {
    if (!store.get("editing") || !store.get("wholeGroup")) return;
    store.set({ editing: false });
    const i = boxOf(store.get("selected"));
    if (i >= 0) renameBox(i);
  }

  const boxOf = (id) => boxes.findIndex(({ group, members }) => group >= 0 && members.some((node) => node.id === id));
  const renameBox = (i) => askName(i, (text) => rename(store, boxes[i].group, text));

  /** The name of a group that has just been made is a field until it is given, so that what is typed next goes there. */
  function nameNew() {
    const id = store.get("naming");
    if (id === null) return;
    store.set({ naming: null });
    if (!store.get("shown").includes("subgraph")) raise(store, "subgraph");
    build();
    const i = boxOf(id);
    if (i >= 0) askName(i, (text) => nameGroup(store, id, text));
  }

  /** A field in the place of a box's name. What would build the boxes anew meanwhile waits for its end. */
  function askName(i, commit) {
    const title = parts.layer.children[i].querySelector(".box-name");
    if (title) editInPlace(title, boxes[i].label, commit, { name: "Name of the supernode", ended: () => late && build() });
  }

  function figure(options) {
    if (boxes.length === 0) return null;
    const names = boxes.map((box) => boxName(store, box));
    return subgraphFigure({ boxes, names, laid, lines, supernodes: store.get("supernodes"), ...options });
  }

  const refit = () => view.forget();
  parts.plot.addEventListener("fit", () => view.fit(laid, true));
  return { build, resize, refit, mark, drawFlows, figure, editName, nameNew, dispose: view.dispose };
}

const shapeOf = ({ width, height }) => `${Math.round(width / 60)} ${Math.round(height / 60)}`;

/** The nearest box in the direction of an arrow key, or −1. */
function neighbour(places, i, [dx, dy]) {
  let best = { at: -1, cost: Infinity };
  places.forEach((place, k) => {
    const [x, y] = [place.x - places[i].x, place.y - places[i].y];
    const along = x * dx + y * dy;
    const aside = Math.abs(x * dy) + Math.abs(y * dx);
    if (k !== i && along > 1 && along + 2 * aside < best.cost) best = { at: k, cost: along + 2 * aside };
  });
  return best.at;
}

function frameElement(store, { group, x, y, width, height }) {
  const [label] = store.get("supernodes")[group];
  const style = { left: `${x}px`, top: `${y}px`, width: `${width}px`, height: `${height}px` };
  const close = h(
    "button",
    { class: "frame-close", type: "button", "aria-label": `Collapse ${label}`, title: "Show it as one box", onclick: () => toggleExpanded(store, group) },
    icon("collapse"),
  );
  return h("div", { class: "frame", style }, h("span", { class: "frame-name", dir: "auto", title: label }, label), close);
}

function flowElement({ d, flow }, { faded, chosen, choose }) {
  const words = `${signedPercent(flow.weight)} of the target's input`;
  const visible = svg("path", { d, class: "flow" });
  visible.style.stroke = css(signedColour(flow.weight, palette()));
  visible.style.strokeWidth = `${flowWidth(flow.weight)}px`;
  visible.style.strokeOpacity = String(flowOpacity(flow.weight));
  const reach = svg("path", { d, class: "flow-reach" });
  const group = svg("g", { class: "flow-line", "data-from": flow.from, "data-to": flow.to }, visible, reach, svg("title", {}, words));
  group.classList.toggle("faded", faded);
  group.classList.toggle("is-selected", chosen);
  group.addEventListener("click", (event) => {
    event.stopPropagation();
    choose();
  });
  return group;
}

/** Strong flows stand out, faint ones stay in the background. */
function flowOpacity(weight) {
  return Math.min(0.95, 0.3 + 0.9 * Math.sqrt(Math.abs(weight)));
}
