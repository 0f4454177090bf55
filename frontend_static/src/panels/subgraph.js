/* The pinned nodes as boxes that can be grouped, named and moved, and what flows between them. */

import { moveBoxes, nameGroup, rename, selectedIndices } from "../actions.js";
import { raise } from "../arrangement.js";
import { arrangeBoxes, boxSize, drawingSize, unitPosition } from "../box-layout.js";
import { editInPlace, h, replaceKeepingFocus, svg, watchSize } from "../dom.js";
import { saveFigure } from "../figures.js";
import { flowCurves } from "../flow-route.js";
import { signedPercent } from "../format.js";
import { clamp, css, signedColour } from "../scales.js";
import { boxEdges, makeBoxes } from "../supernodes.js";
import { fontSize, palette } from "../theme.js";
import { boxElement, boxName, markBoxes } from "./subgraph-box.js";
import { flowWidth, subgraphFigure } from "./subgraph-figure.js";

const FAINT = 0.003;
const LONG_NAME = 17;
const BUILT_FROM = [
  "graph",
  "pruned",
  "pinned",
  "supernodes",
  "labels",
  "positions",
  "theme",
  "featureLabels",
  "boxLayout",
  "notes",
];

export function subgraph(element, store, { figures }) {
  const parts = makeParts();
  element.append(parts.plot);
  const picture = createPicture(store, parts);
  figures.set("subgraph", (kind) => saveFigure(store, picture.figure(), kind, "subgraph"));
  const disposers = [
    store.subscribe(BUILT_FROM, picture.build),
    store.subscribe(["selected", "wholeGroup", "grouping", "hovered"], picture.mark),
    store.subscribe(["editing"], picture.editName),
    store.subscribe(["naming"], picture.nameNew),
    watchSize(parts.plot, picture.build),
  ];
  return () => disposers.forEach((dispose) => dispose());
}

function makeParts() {
  const edges = svg("svg", { class: "flows", "aria-hidden": "true" });
  const layer = h("div", { class: "boxes", role: "group", "aria-label": "Pinned nodes" });
  const empty = emptyState();
  const drawing = h("div", { class: "drawing" }, edges, layer);
  const plot = h("div", { class: "plot subgraph-plot" }, drawing, empty);
  return { edges, layer, drawing, empty, plot };
}

function emptyState() {
  const keys = [
    "Pin with ",
    h("kbd", {}, "Ctrl"),
    "-click or ",
    h("kbd", {}, "p"),
    "; hold ",
    h("kbd", {}, "g"),
  ];
  return h(
    "div",
    { class: "empty" },
    h("p", {}, "Pinned nodes gather here."),
    h("p", { class: "muted" }, ...keys, " and click nodes to group them into a supernode."),
  );
}

/** `build` makes the boxes anew; `mark` only changes classes, since a click must not replace what a double click waits for. */
function createPicture(store, parts) {
  let [boxes, places, flows] = [[], [], []];
  let [size, extent] = [{ width: 0, height: 0 }, boxSize()];
  let [built, late] = [null, false];

  function build() {
    const graph = store.get("graph");
    late = graph === built && parts.layer.querySelector(".edit-field") !== null;
    if (late) return;
    built = graph;
    const panel = { width: parts.plot.clientWidth, height: parts.plot.clientHeight };
    if (!graph || panel.width === 0) return;
    boxes = makeBoxes(graph, store.get("pinned"), store.get("supernodes"));
    const long = boxes.some((box) => boxName(store, box).length > LONG_NAME);
    extent = boxSize(fontSize(), long ? 2 : 1);
    size = drawingSize(boxes.length, panel.width, panel.height, extent);
    parts.drawing.style.width = `${size.width}px`;
    parts.drawing.style.height = `${size.height}px`;
    parts.plot.classList.toggle("scrolls", size.width > panel.width);
    flows = boxEdges(graph, boxes, store.get("pruned")).filter(({ weight }) => Math.abs(weight) >= FAINT);
    places = arrange();
    parts.empty.hidden = boxes.length > 0;
    const elements = boxes.map((box, i) =>
      boxElement(store, box, places[i], { drag: drag(i), size: extent, askName: () => renameBox(i) }),
    );
    replaceKeepingFocus(parts.layer, ...elements);
    drawFlows();
    mark();
  }

  function arrange(fixed = store.get("positions")) {
    return arrangeBoxes(store.get("boxLayout"), boxes, flows, size.width, size.height, fixed, extent);
  }

  function mark() {
    markBoxes(store, boxes, parts.layer);
    const graph = store.get("graph");
    const chosen = new Set(graph ? selectedIndices(store) : []);
    const own = boxes.map(({ members }) => members.some((node) => chosen.has(node.index)));
    const any = own.includes(true);
    for (const path of parts.edges.children) {
      const [from, to] = [own[path.dataset.from], own[path.dataset.to]];
      path.classList.toggle("faded", any && !from && !to);
    }
  }

  function drawFlows() {
    parts.edges.setAttribute("viewBox", `0 0 ${size.width} ${size.height}`);
    const curves = flowCurves(flows, places, extent, size.width);
    const paths = flows.map((flow, i) => flowPath(flow, curves[i]));
    parts.edges.replaceChildren(...paths.reverse());
  }

  const drag = (i) => (dx, dy, finished) => {
    const place = places[i];
    place.x = clamp(place.x + dx, extent.width / 2, size.width - extent.width / 2);
    place.y = clamp(place.y + dy, extent.height / 2, size.height - extent.height / 2);
    if (store.get("boxLayout") === "force") relax(i);
    parts.layer.children[i].style.left = `${place.x}px`;
    parts.layer.children[i].style.top = `${place.y}px`;
    drawFlows();
    mark();
    if (finished) keepPlaces(i, finished === "keys" ? `move ${boxes[i].key}` : null);
  };

  /** In the layout by force, boxes that nobody placed make room while one is dragged. */
  function relax(i) {
    places = arrange({ ...store.get("positions"), [boxes[i].key]: unit(places[i]) });
    places.forEach(({ x, y }, k) => {
      parts.layer.children[k].style.left = `${x}px`;
      parts.layer.children[k].style.top = `${y}px`;
    });
  }

  const unit = (place) => unitPosition(place, size.width, size.height, extent);

  function keepPlaces(i, sitting) {
    const { key } = boxes[i];
    if (!store.get("sticky")) return build();
    if (store.get("boxLayout") === "force")
      return moveBoxes(store, { ...store.get("positions"), [key]: unit(places[i]) }, sitting);
    moveBoxes(store, Object.fromEntries(boxes.map((box, k) => [box.key, unit(places[k])])), sitting);
  }

  /** The key that edits labels renames a supernode that is selected as a whole. */
  function editName() {
    if (!store.get("editing") || !store.get("wholeGroup")) return;
    store.set({ editing: false });
    const i = boxes.findIndex(
      ({ group, members }) => group >= 0 && members.some((node) => node.id === store.get("selected")),
    );
    if (i >= 0) renameBox(i);
  }

  const renameBox = (i) => askName(i, (text) => rename(store, boxes[i].group, text));

  /** The name of a group that has just been made is a field until it is given, so that what is typed next goes there. */
  function nameNew() {
    const id = store.get("naming");
    if (id === null) return;
    store.set({ naming: null });
    if (!store.get("shown").includes("subgraph")) raise(store, "subgraph");
    build();
    const i = boxes.findIndex(({ group, members }) => group >= 0 && members.some((node) => node.id === id));
    if (i >= 0) askName(i, (text) => nameGroup(store, id, text));
  }

  /** A field in the place of a box's name. What would build the boxes anew meanwhile waits for its end. */
  function askName(i, commit) {
    const title = parts.layer.children[i].querySelector(".box-name");
    if (title) editInPlace(title, boxes[i].label, commit, { name: "Name of the supernode", ended: () => late && build() });
  }

  function figure() {
    if (boxes.length === 0) return null;
    return subgraphFigure({ store, boxes, places, flows, size, extent });
  }

  return { build, mark, figure, editName, nameNew };
}

function flowPath({ from, to, weight }, curve) {
  const path = svg(
    "path",
    { d: curve, class: "flow", "data-from": from, "data-to": to },
    svg("title", {}, `${signedPercent(weight)} of the target's input`),
  );
  path.style.stroke = css(signedColour(weight, palette()));
  path.style.strokeWidth = `${flowWidth(weight)}px`;
  return path;
}
