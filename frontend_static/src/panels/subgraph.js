/* The pinned nodes as boxes that can be grouped, named and moved, and what flows between them. */

import { beginGrouping, click, dissolve, finishGrouping, freeBoxes, hover, moveBoxes, rename, selectGroup, togglePin, unpinAll } from "../actions.js";
import { editInPlace, glyph, h, icon, replaceKeepingFocus, svg } from "../dom.js";
import { layerLabel, nodeLabel, nodePlace, signedPercent, tokenLabel } from "../format.js";
import { clamp, css, signedColour } from "../scales.js";
import { BOX, MAX_BOXES, boxEdges, layoutBoxes, makeBoxes, unitPosition } from "../supernodes.js";
import { palette } from "../theme.js";

const FAINT = 0.003;
const WIDEST = 15;

export function subgraph(element, store) {
  const edges = svg("svg", { class: "layer", "aria-hidden": "true" });
  const layer = h("div", { class: "boxes" });
  const note = h("div", { class: "subgraph-note muted", role: "status" });
  const empty = h("div", { class: "empty" }, h("p", {}, "Pinned nodes gather here."),
    h("p", { class: "muted" }, "Pin with ", h("kbd", {}, "Ctrl"), "-click or ", h("kbd", {}, "p"), "; hold ", h("kbd", {}, "g"),
      " and click nodes to group them into a supernode."));
  const plot = h("div", { class: "plot subgraph-plot" }, edges, layer, note, empty);
  element.append(plot);
  let size = { width: 0, height: 0 };
  let boxes = [];
  let places = [];
  let flows = [];

  function rebuild() {
    const graph = store.get("graph");
    if (!graph || size.width === 0) return;
    boxes = makeBoxes(graph, store.get("pinned"), store.get("supernodes"));
    flows = boxEdges(graph, boxes).filter(({ weight }) => Math.abs(weight) >= FAINT);
    places = layoutBoxes(boxes, size.width, size.height, store.get("positions"));
    empty.hidden = boxes.length > 0;
    paint();
  }

  function paint() {
    replaceKeepingFocus(layer, ...boxes.map((box, i) => boxElement(store, box, places[i], drag(i))));
    mark();
    paintEdges();
  }

  /** Only classes: a click must not replace the element that a double click is waiting for. */
  function mark() {
    const [selected, marked] = [store.get("selected"), store.get("grouping")];
    const whole = store.get("wholeGroup");
    boxes.forEach((box, i) => {
      const classes = layer.children[i].classList;
      classes.toggle("is-selected", box.members.some((node) => node.id === selected));
      classes.toggle("is-marked", marked?.includes(box.members[0].id) ?? false);
      classes.toggle("grouping", marked !== null);
    });
    for (const dot of layer.querySelectorAll(".dot")) dot.classList.toggle("is-selected", !whole && dot.dataset.member === selected);
    note.textContent = store.get("pinned").length > MAX_BOXES && boxes.length === MAX_BOXES
      ? `The first ${MAX_BOXES} boxes are shown.` : store.get("grouping") ? "Click nodes to group, then release g." : "";
  }

  function paintEdges() {
    edges.setAttribute("viewBox", `0 0 ${size.width} ${size.height}`);
    edges.replaceChildren(...[...flows].reverse().map((flow) => edgePath(flow, places, palette(), boxes)));
  }

  function drag(i) {
    return (dx, dy, finished) => {
      places[i].x = clamp(places[i].x + dx, BOX.width / 2, size.width - BOX.width / 2);
      places[i].y = clamp(places[i].y + dy, BOX.height / 2, size.height - BOX.height / 2);
      const box = layer.children[i];
      box.style.left = `${places[i].x}px`;
      box.style.top = `${places[i].y}px`;
      paintEdges();
      if (finished) moveBoxes(store, { [boxes[i].key]: unitPosition(places[i], size.width, size.height) });
    };
  }

  const observer = new ResizeObserver(() => {
    size = { width: plot.clientWidth, height: plot.clientHeight };
    rebuild();
  });
  observer.observe(plot);
  const disposers = [
    store.subscribe(["graph", "pinned", "supernodes", "labels", "positions", "theme", "featureLabels"], rebuild),
    store.subscribe(["selected", "wholeGroup", "grouping"], mark),
    store.subscribe(["hovered"], () => markHovered(layer, boxes, store.get("hovered"))),
    () => observer.disconnect(),
  ];
  return () => disposers.forEach((dispose) => dispose());
}

/** Buttons of the panel's header. */
export function subgraphControls(store) {
  const group = h("button", { class: "small", type: "button", title: "Mark nodes, then press again (or hold g)" }, "Group");
  group.addEventListener("click", () => (store.get("grouping") ? finishGrouping(store) : beginGrouping(store)));
  store.subscribe(["grouping"], () => {
    group.textContent = store.get("grouping") ? `Merge ${store.get("grouping").length}` : "Group";
    group.setAttribute("aria-pressed", String(store.get("grouping") !== null));
  });
  return [group,
    h("button", { class: "small", type: "button", title: "Forget where boxes were dragged", onclick: () => freeBoxes(store) }, "Arrange"),
    h("button", { class: "small", type: "button", onclick: () => unpinAll(store) }, "Unpin all")];
}

function boxElement(store, box, place, drag) {
  const [first] = box.members;
  const grouped = box.group >= 0;
  const name = grouped ? box.label : nodeLabel(first, store.get("labels"), store.get("featureLabels")[first.code]);
  const title = h("span", { class: "box-name", dir: "auto", title: name }, name);
  const element = h(
    "div",
    { class: grouped ? "box group" : "box",
      tabindex: "0", role: "group", "aria-label": `${grouped ? "Supernode " : ""}${name}`, "data-node": first.id,
      style: { left: `${place.x}px`, top: `${place.y}px`, width: `${BOX.width}px`, "min-height": `${BOX.height}px` } },
    title,
    h("span", { class: "box-place" }, grouped ? memberDots(store, box) : placeText(first)),
    grouped && h("button", { class: "dissolve", type: "button", "aria-label": `Dissolve ${name}`, title: "Dissolve the group",
      onclick: (event) => { event.stopPropagation(); dissolve(store, box.group); } }, icon("cross")),
  );
  /* On the box: a captured pointer's clicks go to the element that holds it. */
  if (grouped) element.addEventListener("dblclick", () => editInPlace(title, box.label, (text) => rename(store, box.group, text)));
  const choose = (event) => {
    if (grouped && !store.get("grouping")) return event.ctrlKey || event.metaKey ? dissolve(store, box.group) : selectGroup(store, first.id);
    return click(store, first.id, event);
  };
  useBoxPointer(element, { click: choose, drag });
  element.addEventListener("pointerenter", () => hover(store, first.id));
  element.addEventListener("pointerleave", () => hover(store, null));
  element.addEventListener("keydown", (event) => event.key === "Enter" && event.target === element && choose(event));
  return element;
}

function placeText(node) {
  return node.kind === "feature" || node.kind === "error" ? `${layerLabel(node)} · ${tokenLabel(node.token, 10)}` : nodePlace(node);
}

function memberDots(store, box) {
  return h("span", { class: "dots" }, ...box.members.slice(0, 12).map((node) => {
    const dot = h("button", { class: "dot", type: "button", "data-member": node.id,
      title: `${nodeLabel(node, store.get("labels"))} · ${nodePlace(node)}`,
      onpointerdown: (event) => event.stopPropagation(),
      onclick: (event) => { event.stopPropagation(); if (event.ctrlKey || event.metaKey) togglePin(store, node.id); else click(store, node.id, event); } },
    glyph(node.kind));
    dot.addEventListener("pointerenter", () => hover(store, node.id));
    return dot;
  }), box.members.length > 12 && h("span", { class: "muted" }, `+${box.members.length - 12}`));
}

function useBoxPointer(element, { click: onClick, drag }) {
  let last = null;
  let moved = false;
  element.addEventListener("pointerdown", (event) => {
    if (event.button !== 0 || event.target.closest("button, input")) return;
    last = { x: event.clientX, y: event.clientY, startX: event.clientX, startY: event.clientY };
    moved = false;
    element.setPointerCapture(event.pointerId);
  });
  element.addEventListener("pointermove", (event) => {
    if (!last) return;
    moved = moved || Math.hypot(event.clientX - last.startX, event.clientY - last.startY) > 4;
    if (!moved) return;
    drag(event.clientX - last.x, event.clientY - last.y, false);
    Object.assign(last, { x: event.clientX, y: event.clientY });
  });
  element.addEventListener("pointerup", (event) => {
    if (!last) return;
    last = null;
    if (moved) drag(0, 0, true);
    else onClick(event);
  });
}

function edgePath({ from, to, weight }, places, colours, boxes) {
  const [a, b] = [places[from], places[to]];
  const upward = b.y <= a.y;
  const y0 = a.y + (upward ? -1 : 1) * (BOX.height / 2);
  const y1 = b.y + (upward ? 1 : -1) * (BOX.height / 2);
  const bend = Math.max(18, Math.abs(y0 - y1) * 0.45) * (upward ? -1 : 1);
  const path = svg("path", { d: `M${a.x},${y0} C${a.x},${y0 + bend} ${b.x},${y1 - bend} ${b.x},${y1}`, class: "flow" });
  path.style.stroke = css(signedColour(weight, colours));
  path.style.strokeWidth = `${clamp(Math.abs(weight) * WIDEST, 0.6, WIDEST)}px`;
  path.append(svg("title", {}, `${signedPercent(weight)} of the input of ${boxes[to].label || boxes[to].members[0].id}`));
  return path;
}

function markHovered(layer, boxes, id) {
  boxes.forEach((box, i) => layer.children[i]?.classList.toggle("is-hovered", box.members.some((node) => node.id === id)));
}
