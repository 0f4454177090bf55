/* The current layout of the panels: from the URL, the graph file, this browser, or the default; and where changes are stored. */

import { borders, decodeLayout, defaultLayout, encodeLayout, frontOf, moveBorder, neighbour, place, shapeFor } from "./grid.js";
import { remember, remembered } from "./theme.js";

const KEY = "circuit-tracer-layout";
const SIDES = { left: "left", right: "right", up: "top", down: "bottom" };

/** Puts a layout into the store and keeps it up to date. Returns the function that ends it. */
export function useArrangement(store, panels) {
  const shape = () => shapeFor(window.innerWidth, window.innerHeight);
  let current = shape();
  store.set({ panels, shape: current });
  arrange(store);
  const resized = () => {
    if (shape() === current) return;
    current = shape();
    store.set({ shape: current });
    arrange(store);
  };
  window.addEventListener("resize", resized);
  const dispose = store.subscribe(["layout", "raised"], () => showFronts(store));
  const raiseTab = store.subscribe(["tab"], () => store.get("tab") && raise(store, store.get("tab")));
  showFronts(store);
  return () => {
    window.removeEventListener("resize", resized);
    dispose();
    raiseTab();
  };
}

/** Takes the layout that is in force for the graph and the window. Other people's layouts are meant for wide windows. */
export function arrange(store) {
  const [panels, shape] = [store.get("panels"), store.get("shape")];
  const read = (text) => (text ? decodeLayout(text, panels) : null);
  const given = shape === "wide" ? read(store.get("addressLayout")) ?? read(store.get("otherParams").gridsnap) : null;
  store.set({
    layout: given ?? read(remembered(`${KEY}-${shape}`)) ?? defaultLayout(panels, shape),
    maximised: null,
  });
}

function showFronts(store) {
  const shown = store.get("layout").map((area) => frontOf(area, store.get("raised")));
  store.set({ shown: Object.freeze(shown) });
}

/** Whether the window shows the default layout. */
export function isDefault(store) {
  return encodeLayout(store.get("layout")) === encodeLayout(defaultLayout(store.get("panels"), store.get("shape")));
}

/** A layout made by hand: stored in the graph's file if that has one, else in this browser. */
export function keepLayout(store, layout) {
  if (!layout || layout === store.get("layout")) return;
  store.set({ layout, maximised: null });
  const text = encodeLayout(layout);
  const file = store.get("otherParams");
  if (store.get("shape") === "wide" && store.get("addressLayout")) store.set({ addressLayout: text });
  else if (store.get("shape") === "wide" && file.gridsnap)
    store.set({ otherParams: { ...file, gridsnap: text }, edits: store.get("edits") + 1 });
  else remember(`${KEY}-${store.get("shape")}`, text);
}

export function resetLayout(store) {
  const { gridsnap, ...otherParams } = store.get("otherParams");
  remember(`${KEY}-${store.get("shape")}`, "");
  store.set({ addressLayout: null });
  if (gridsnap) store.set({ otherParams, edits: store.get("edits") + 1 });
  arrange(store);
}

/** Writes the current layout into the graph's file, so that everyone who opens the graph gets it. */
export function saveLayoutWithGraph(store) {
  const gridsnap = encodeLayout(store.get("layout"));
  store.set({
    addressLayout: null,
    otherParams: { ...store.get("otherParams"), gridsnap },
    edits: store.get("edits") + 1,
  });
}

/** Brings a panel to the front of its area. */
export function raise(store, name) {
  const raised = store.get("raised");
  if (raised.at(-1) !== name)
    store.set({ raised: Object.freeze([...raised.filter((other) => other !== name), name]), tab: name });
}

export function toggleMaximised(store, name) {
  store.set({ maximised: store.get("maximised") === name ? null : name });
}

const areaIndex = (store, name) => store.get("layout").findIndex((area) => area.names.includes(name));

/** Changes places with the neighbour in a direction (`left`, `right`, `up`, `down`). */
export function swapTowards(store, name, direction) {
  const layout = store.get("layout");
  const other = neighbour(layout, areaIndex(store, name), direction);
  if (other >= 0) keepLayout(store, place(layout, layout[areaIndex(store, name)].names, other, "swap"));
}

/** Moves one panel out of its tabs into the half of its area that lies in a direction. */
export function tearOff(store, name, direction = "down") {
  keepLayout(store, place(store.get("layout"), [name], areaIndex(store, name), SIDES[direction]));
}

/** Puts a panel behind a tab of the area of another one. */
export function joinTabs(store, names, other) {
  keepLayout(store, place(store.get("layout"), names, areaIndex(store, other), "tabs"));
  raise(store, names[0]);
}

/** Moves the border on an area's right or lower side (failing that, its left or upper one) by one grid line. */
export function nudgeBorder(store, name, direction) {
  const layout = store.get("layout");
  const [axis, step] = { left: ["x", -1], right: ["x", 1], up: ["y", -1], down: ["y", 1] }[direction];
  const index = areaIndex(store, name);
  const lines = borders(layout).filter((border) => border.axis === axis);
  const border =
    lines.find(({ before }) => before.includes(index)) ?? lines.find(({ after }) => after.includes(index));
  if (border) keepLayout(store, moveBorder(layout, border, border.at + step));
}
