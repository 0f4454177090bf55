/* The strip above the subgraph while groups are proposed: their level, and what becomes of them. */

import { acceptDrafts, discardDrafts, followDrafts, propose } from "../drafts.js";
import { h } from "../dom.js";

/** `{element, dispose}`; shown while the store has drafts. */
export function draftBar(store) {
  const level = h("input", { type: "range", min: "0", max: "1", step: "0.01", "aria-label": "Level: least similarity in a group" });
  const value = h("output", {});
  const across = h("input", { type: "checkbox" });
  const count = h("span", { class: "muted", role: "status" });
  const accept = h("button", { class: "small", type: "button", onclick: () => acceptDrafts(store) }, "Accept all");
  const again = () => propose(store, { level: Number(level.value), across: across.checked });
  level.addEventListener("input", again);
  across.addEventListener("change", again);
  const element = h(
    "div",
    { class: "draft-bar", role: "group", "aria-label": "Proposed groups", hidden: true, onkeydown: leave },
    h("label", { class: "check", title: "Lower gives fewer, larger groups" }, "Level", level, value),
    h("label", { class: "check", title: "Also join groups at different positions that share a feature or are much alike" }, across, "Across positions"),
    count,
    accept,
    h("button", { class: "small", type: "button", onclick: () => discardDrafts(store) }, "Discard"),
  );

  function leave(event) {
    if (event.key === "Escape") discardDrafts(store);
    else if (!event.key.startsWith("Arrow")) return;
    event.stopPropagation();
  }

  function render() {
    const drafts = store.get("drafts");
    const focused = element.contains(document.activeElement);
    element.hidden = drafts === null;
    if (drafts === null) {
      if (focused) document.querySelector(".propose-groups")?.focus();
      return;
    }
    level.value = String(drafts.level);
    value.textContent = drafts.level.toFixed(2);
    across.checked = drafts.across;
    accept.disabled = drafts.groups.length === 0;
    count.textContent = inWords(drafts);
  }

  const disposers = [store.subscribe(["drafts"], render), followDrafts(store)];
  render();
  return { element, dispose: () => disposers.forEach((dispose) => dispose()) };
}

function inWords({ all, groups }) {
  if (all.length === 0) return "No two features are that similar";
  if (groups.length === 0) return "All groups are accepted";
  return `${groups.length} proposed`;
}
