/* Keys of the whole page. */

import {
  beginGrouping,
  cancelGrouping,
  finishGrouping,
  follow,
  followSibling,
  select,
  togglePin,
} from "./actions.js";
import { toggleTheme } from "./panels/header.js";

/** `commands` are main's `search()` and `help()`. Returns the function that ends listening. */
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
    g: () => beginGrouping(store),
    e: () => store.set({ editing: store.get("selected") !== null }),
    t: () => toggleTheme(store),
    u: store.undo,
    U: store.redo,
    Escape: () => (store.get("grouping") ? cancelGrouping(store) : select(store, null)),
  };

  function down(event) {
    if (
      isTyping(event.target) ||
      event.altKey ||
      store.get("graph") === null ||
      document.querySelector("dialog[open]")
    )
      return;
    const command = event.ctrlKey || event.metaKey ? chord(event) : keys[event.key];
    if (!command || (event.repeat && event.key === "g")) return;
    event.preventDefault();
    command();
  }

  function chord(event) {
    const key = event.key.toLowerCase();
    if (key === "z") return event.shiftKey ? store.redo : store.undo;
    return key === "y" ? store.redo : null;
  }

  const up = (event) => event.key === "g" && store.get("grouping") && finishGrouping(store);
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

function isTyping(target) {
  return (
    target instanceof HTMLElement &&
    target.matches("input:not([type=range]), textarea, select, [contenteditable]")
  );
}
