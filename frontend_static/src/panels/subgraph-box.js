/* One box of the subgraph: a pinned node, or a supernode with a dot for each member. */

import { click, dissolve, hover, selectGroup, selectedIndices, toggleExpanded, togglePin } from "../actions.js";
import { glyph, h, icon } from "../dom.js";
import { acceptDraft } from "../drafts.js";
import { layerLabel, nodeLabel, nodePlace, tokenLabel } from "../format.js";
import { css, signedColour } from "../scales.js";
import { BOX } from "../subgraph-layout.js";
import { palette } from "../theme.js";

/** `drag(dx, dy, finished)` is called while the box is dragged and once at the end, `move([dx, dy])` to go to the next box, `askName()` to edit a group's name. */
export function boxElement(store, box, place, { drag, move, askName }) {
  const [first] = box.members;
  const grouped = box.group >= 0;
  const several = grouped || Boolean(box.draft);
  const name = boxName(store, box);
  const title = h("span", { class: "box-name", dir: "auto", title: name }, name);
  const element = h(
    "div",
    {
      class: box.draft ? "box group draft" : grouped ? "box group" : "box",
      tabindex: "0",
      role: "group",
      "aria-label": `${box.draft ? "Proposed supernode " : grouped ? "Supernode " : ""}${name}`,
      "data-node": first.id,
      "data-box": box.members.map((node) => node.id).join(" "),
      style: boxStyle(place),
      onpointerenter: () => hover(store, first.id),
      onpointerleave: () => hover(store, null),
      onkeydown: (event) => event.target === element && useBoxKeys(store, box, event, { drag, move }),
      /* On the box: a captured pointer's clicks go to the element that holds it. */
      ondblclick: () => grouped && askName(),
    },
    title,
    h("span", { class: "box-place" }, several ? memberDots(store, box) : [glyph(first.kind), " ", placeText(first)]),
    noteMark(store, box),
    grouped && box.members.length > 1 && expandButton(store, box),
    grouped && dissolveButton(store, box),
    box.draft && acceptButton(store, box.draft),
  );
  useBoxPointer(element, { click: (event) => choose(store, box, event), drag });
  return element;
}

/** What a box is called. */
export function boxName(store, { group, draft, label, members: [first] }) {
  return group >= 0 || draft ? label : nodeLabel(first, store.get("labels"), store.get("featureLabels")[first.code]);
}

/** Where it is, or how many nodes it holds. */
export function boxPlace({ group, draft, members }) {
  if (group < 0 && !draft) return placeText(members[0]);
  return `${members.length} ${members.length === 1 ? "node" : "nodes"}`;
}

function noteMark(store, { members }) {
  const texts = members.map((node) => store.get("notes").nodes[node.id]).filter(Boolean);
  return texts.length > 0 && h("span", { class: "note-mark", title: texts.join("\n"), "aria-label": "has a note" }, icon("note"));
}

const ARROWS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
const STEP = 12;
const MOST_DOTS = 7;

/** Enter chooses, Delete dissolves or unpins, arrows go to the next box, Shift with an arrow moves this one, + and − open and close a group. */
function useBoxKeys(store, box, event, { drag, move }) {
  const arrow = ARROWS[event.key];
  const frame = box.group >= 0 ? box.group : box.frame;
  if (event.key === "Enter") choose(store, box, event);
  else if (box.draft && (event.key === "a" || event.key === "A")) acceptDraft(store, box.draft);
  else if (box.draft && (event.key === "Delete" || event.key === "Backspace")) return;
  else if (event.key === "Delete" || event.key === "Backspace") remove(store, box);
  else if (arrow && event.shiftKey) drag(arrow[0] * STEP, arrow[1] * STEP, "keys");
  else if (arrow) move(arrow);
  else if ((event.key === "+" || event.key === "-") && frame !== undefined && box.members.length > (event.key === "+" ? 1 : 0)) toggleExpanded(store, frame);
  else return;
  event.preventDefault();
  event.stopPropagation();
}

function remove(store, { group, members: [first] }) {
  if (group >= 0) dissolve(store, group);
  else togglePin(store, first.id);
}

/** What a click on a box does: a supernode is selected as a whole, with Ctrl or Cmd dissolved. */
function choose(store, { group, members: [first] }, event) {
  if (group < 0 || store.get("grouping")) click(store, first.id, event);
  else if (event.ctrlKey || event.metaKey) dissolve(store, group);
  else selectGroup(store, first.id);
}

/** Brings the classes of all boxes and dots up to date with selection, grouping and pointer. */
export function markBoxes(store, boxes, layer) {
  const [selected, marked, hovered] = [store.get("selected"), store.get("grouping"), store.get("hovered")];
  boxes.forEach(({ members }, i) => {
    const has = (id) => members.some((node) => node.id === id);
    const { classList } = layer.children[i];
    classList.toggle("is-selected", has(selected));
    classList.toggle("is-hovered", has(hovered));
    classList.toggle("is-marked", marked?.includes(members[0].id) ?? false);
    classList.toggle("grouping", marked !== null);
  });
  colourGlyphs(store, boxes, layer);
  const whole = store.get("wholeGroup");
  for (const dot of layer.querySelectorAll(".dot")) {
    dot.classList.toggle("is-selected", !whole && dot.dataset.member === selected);
  }
}

/** Every member's glyph has the colour of its link with the selection. */
function colourGlyphs(store, boxes, layer) {
  const graph = store.get("pruned");
  const shares = graph ? linkShares(graph, selectedIndices(store)) : new Map();
  boxes.forEach(({ members }, i) => {
    const glyphs = layer.children[i].querySelectorAll(".glyph");
    glyphs.forEach((mark, k) => {
      const share = members[k] && shares.get(members[k].index);
      mark.style.background = share === undefined ? "" : css(signedColour(share, palette()));
    });
  });
}

function linkShares(graph, chosen) {
  const { source, target, share } = graph.links;
  const shares = new Map();
  for (const index of chosen) {
    for (const link of graph.inputs(index)) shares.set(source[link], share[link]);
    for (const link of graph.outputs(index)) shares.set(target[link], share[link]);
  }
  return shares;
}

function boxStyle({ x, y }) {
  return { left: `${x}px`, top: `${y}px`, width: `${BOX.width}px`, height: `${BOX.height}px` };
}

function expandButton(store, { label, group }) {
  const onclick = (event) => {
    event.stopPropagation();
    toggleExpanded(store, group);
  };
  const attributes = { class: "expand", type: "button", tabindex: "-1", "aria-label": `Expand ${label}`, title: "Show its members (+)" };
  return h("button", { ...attributes, onclick }, icon("expand"));
}

function dissolveButton(store, { label, group }) {
  const onclick = (event) => {
    event.stopPropagation();
    dissolve(store, group);
  };
  const attributes = {
    class: "dissolve",
    type: "button",
    tabindex: "-1",
    "aria-label": `Dissolve ${label}`,
    title: "Dissolve the group",
  };
  return h("button", { ...attributes, onclick }, icon("cross"));
}

function acceptButton(store, draft) {
  const onclick = (event) => {
    event.stopPropagation();
    acceptDraft(store, draft);
  };
  const numbers = [`${(100 * draft.influence).toFixed(1)} % of the influence`];
  if (draft.coherence !== null) numbers.push(`coherence ${draft.coherence.toFixed(2)}`);
  const title = `Make it a supernode (a): ${numbers.join(", ")}`;
  return h("button", { class: "accept", type: "button", tabindex: "-1", "aria-label": `Accept ${draft.name}`, title, onclick }, icon("check"));
}

function placeText(node) {
  return node.kind === "feature" || node.kind === "error"
    ? `${layerLabel(node)} · ${tokenLabel(node.token, 10)}`
    : nodePlace(node);
}

function memberDots(store, box) {
  return h(
    "span",
    { class: "dots" },
    ...box.members.slice(0, MOST_DOTS).map((node) => {
      const dot = h(
        "button",
        {
          class: "dot",
          type: "button",
          tabindex: "-1",
          "data-member": node.id,
          title: `${nodeLabel(node, store.get("labels"))} · ${nodePlace(node)}`,
          onpointerdown: (event) => event.stopPropagation(),
          onclick: (event) => {
            event.stopPropagation();
            if (event.ctrlKey || event.metaKey) togglePin(store, node.id);
            else click(store, node.id, event);
          },
        },
        glyph(node.kind),
      );
      dot.addEventListener("pointerenter", () => hover(store, node.id));
      return dot;
    }),
    box.members.length > MOST_DOTS && h("span", { class: "muted" }, `+${box.members.length - MOST_DOTS}`),
  );
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
