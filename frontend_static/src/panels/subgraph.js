/* The pinned nodes as boxes that can be grouped, named and moved, and what flows between them. */

import { moveBoxes } from "../actions.js";
import { h, replaceKeepingFocus, svg, watchSize } from "../dom.js";
import { signedPercent } from "../format.js";
import { clamp, css, signedColour } from "../scales.js";
import { MAX_BOXES, boxEdges, boxSize, layoutBoxes, makeBoxes, unitPosition } from "../supernodes.js";
import { fontSize, palette } from "../theme.js";
import { boxElement, markBoxes } from "./subgraph-box.js";

const FAINT = 0.003;
const WIDEST = 15;
const BUILT_FROM = ["graph", "pinned", "supernodes", "labels", "positions", "theme", "featureLabels"];

export function subgraph(element, store) {
  const parts = makeParts();
  element.append(parts.plot);
  const picture = createPicture(store, parts);
  const disposers = [
    store.subscribe(BUILT_FROM, picture.build),
    store.subscribe(["selected", "wholeGroup", "grouping", "hovered"], picture.mark),
    watchSize(parts.plot, picture.build),
  ];
  return () => disposers.forEach((dispose) => dispose());
}

function makeParts() {
  const edges = svg("svg", { class: "layer", "aria-hidden": "true" });
  const layer = h("div", { class: "boxes" });
  const note = h("div", { class: "subgraph-note muted", role: "status" });
  const empty = emptyState();
  return {
    edges,
    layer,
    note,
    empty,
    plot: h("div", { class: "plot subgraph-plot" }, edges, layer, note, empty),
  };
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

  function build() {
    const graph = store.get("graph");
    size = { width: parts.plot.clientWidth, height: parts.plot.clientHeight };
    if (!graph || size.width === 0) return;
    extent = boxSize(fontSize());
    boxes = makeBoxes(graph, store.get("pinned"), store.get("supernodes"));
    flows = boxEdges(graph, boxes).filter(({ weight }) => Math.abs(weight) >= FAINT);
    places = layoutBoxes(boxes, size.width, size.height, store.get("positions"), extent);
    parts.empty.hidden = boxes.length > 0;
    const elements = boxes.map((box, i) =>
      boxElement(store, box, places[i], { drag: drag(i), size: extent }),
    );
    replaceKeepingFocus(parts.layer, ...elements);
    mark();
    drawFlows();
  }

  function mark() {
    markBoxes(store, boxes, parts.layer);
    const cut = boxes.length === MAX_BOXES ? `The first ${MAX_BOXES} boxes are shown.` : "";
    parts.note.textContent = store.get("grouping") ? "Click nodes to group, then release g." : cut;
  }

  function drawFlows() {
    parts.edges.setAttribute("viewBox", `0 0 ${size.width} ${size.height}`);
    const paths = flows.map((flow) => flowPath(flow, places[flow.from], places[flow.to], extent));
    parts.edges.replaceChildren(...paths.reverse());
  }

  const drag = (i) => (dx, dy, finished) => {
    const place = places[i];
    place.x = clamp(place.x + dx, extent.width / 2, size.width - extent.width / 2);
    place.y = clamp(place.y + dy, extent.height / 2, size.height - extent.height / 2);
    parts.layer.children[i].style.left = `${place.x}px`;
    parts.layer.children[i].style.top = `${place.y}px`;
    drawFlows();
    if (finished) keepPlaces();
  };

  function keepPlaces() {
    const unit = (place) => unitPosition(place, size.width, size.height, extent);
    moveBoxes(store, Object.fromEntries(boxes.map(({ key }, i) => [key, unit(places[i])])));
  }

  return { build, mark };
}

function flowPath({ weight }, source, target, { height }) {
  const side = target.y <= source.y ? -1 : 1;
  const [y0, y1] = [source.y + (side * height) / 2, target.y - (side * height) / 2];
  const bend = side * Math.max(18, Math.abs(y0 - y1) * 0.45);
  const curve = `M${source.x},${y0} C${source.x},${y0 + bend} ${target.x},${y1 - bend} ${target.x},${y1}`;
  const path = svg(
    "path",
    { d: curve, class: "flow" },
    svg("title", {}, `${signedPercent(weight)} of the target's input`),
  );
  path.style.stroke = css(signedColour(weight, palette()));
  path.style.strokeWidth = `${clamp(Math.abs(weight) * WIDEST, 0.6, WIDEST)}px`;
  return path;
}
