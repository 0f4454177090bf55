/* All plain values that the file has about a node: in the tooltip while it is asked for, and below the details of a node. */

import { plainValues } from "../attributes.js";
import { h } from "../dom.js";

const LONGEST = 400;

/** A list of keys and values, or null while they aren't there. */
export function attributeTable(store, node) {
  const pairs = node.difference
    ? [
        ["first", node.difference.a],
        ["second", node.difference.b],
      ]
    : plainValues(store.get("attributes")?.[node.index]);
  if (pairs.length === 0) return null;
  return h(
    "dl",
    { class: "attributes" },
    ...pairs.flatMap(([key, text]) => [h("dt", {}, key), h("dd", { dir: "auto" }, text.slice(0, LONGEST))]),
  );
}

/** The same behind a line to open, for those who have no pointer. `ask()` reads what isn't there yet. */
export function attributeDetails(store, node, ask) {
  const place = h("div", {}, h("p", { class: "muted none" }, "Reading …"));
  const fill = () => {
    const table = attributeTable(store, node);
    if (table) place.replaceChildren(table);
    return table !== null;
  };
  const element = h("details", { class: "all-attributes" }, h("summary", {}, "In the file"), place);
  element.addEventListener("toggle", () => {
    if (!element.open || fill()) return;
    const end = store.subscribe(["attributes"], () => (fill() || !element.isConnected) && end());
    ask();
  });
  return element;
}

/** While the meta key is held, or after `i`, the tooltip holds the table. Returns the function that ends it. */
export function useAttributeKey(store, ask) {
  let held = false;
  const set = (value) => {
    if (store.get("everyAttribute") === value) return;
    store.set({ everyAttribute: value });
    if (value) ask();
  };
  const down = (event) => {
    if (event.key !== "Meta" || store.get("everyAttribute")) return;
    held = true;
    set(true);
  };
  const up = (event) => {
    if ((event.type === "keyup" && event.key !== "Meta") || !held) return;
    held = false;
    set(false);
  };
  document.addEventListener("keydown", down);
  document.addEventListener("keyup", up);
  window.addEventListener("blur", up);
  return () => {
    document.removeEventListener("keydown", down);
    document.removeEventListener("keyup", up);
    window.removeEventListener("blur", up);
  };
}
