/* Keys of the whole page. */

import {
  beginGrouping,
  cancelGrouping,
  finishGrouping,
  follow,
  followSibling,
  markForGroup,
  select,
  togglePin,
} from "./actions.js";
import { toggleTheme } from "./panels/header.js";

const ALWAYS = new Set(["n", "o", "?", "t"]);

/** `commands` are main's `search()`, `help()`, `prune()`, `newGraph()`, `library()` and `attributes()`. Returns the function that ends listening. */
export function useKeyboard(store, commands) {
  const keys = {
    "/": commands.search,
    "?": commands.help,
    ArrowUp: () => follow(store, "output"),
    ArrowDown: () => follow(store, "input"),
    ArrowLeft: () => followSibling(store, -1),
    ArrowRight: () => followSibling(store, 1),
    p: () => {
      const id = store.get("selected") ?? store.get("hovered");
      if (id) togglePin(store, id);
    },
    g: () => (store.get("grouping") ? finishGrouping(store) : hold()),
    Enter: () => markSelected(store),
    e: () => store.set({ editing: store.get("selected") !== null }),
    i: () => {
      store.set({ everyAttribute: !store.get("everyAttribute") });
      commands.attributes();
    },
    r: commands.prune,
    n: commands.newGraph,
    o: commands.library,
    t: () => toggleTheme(store),
    u: store.undo,
    U: store.redo,
    Escape: () => {
      if (store.get("grouping")) cancelGrouping(store);
      else if (store.get("pruningOpen")) store.set({ pruningOpen: false });
      else select(store, null);
    },
  };

  let held = false;
  const hold = () => {
    held = true;
    beginGrouping(store);
  };

  function down(event) {
    if (
      isTyping(event.target) ||
      event.altKey ||
      (store.get("graph") === null && !ALWAYS.has(event.key)) ||
      document.querySelector("dialog[open]")
    )
      return;
    const command = event.ctrlKey || event.metaKey ? chord(event) : keys[event.key];
    if (!command || (event.repeat && event.key === "g")) return;
    if (event.key === "Enter" && (store.get("grouping") === null || isControl(event.target))) return;
    event.preventDefault();
    command();
  }

  function chord(event) {
    const key = event.key.toLowerCase();
    if (key === "z") return event.shiftKey ? store.redo : store.undo;
    return key === "y" ? store.redo : null;
  }

  /** Let go with nodes marked, g merges them; a mere tap stays in force until the next, so that both hands aren't needed. */
  function up(event) {
    if (event.key !== "g" || !held) return;
    held = false;
    if (store.get("grouping")?.length > 0) finishGrouping(store);
    else if (store.get("grouping")) markSelected(store);
  }

  const away = () => store.get("grouping")?.length === 0 && cancelGrouping(store);
  document.addEventListener("keydown", down);
  document.addEventListener("keyup", up);
  window.addEventListener("blur", away);
  return () => {
    document.removeEventListener("keydown", down);
    document.removeEventListener("keyup", up);
    window.removeEventListener("blur", away);
  };
}

/** While nodes are being grouped: marks the selected one, or takes it out again. */
function markSelected(store) {
  const id = store.get("selected");
  if (id !== null) markForGroup(store, id);
}

function isControl(target) {
  return target instanceof HTMLElement && target.closest("button, a, input, select, textarea, .box") !== null;
}

function isTyping(target) {
  return (
    target instanceof HTMLElement &&
    target.matches("input:not([type=range]), textarea, select, [contenteditable]")
  );
}
