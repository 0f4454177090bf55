/* Buttons of the subgraph's header. */

import { beginGrouping, finishGrouping, freeBoxes, setSticky, unpinAll } from "../actions.js";
import { LAYOUTS } from "../box-layout.js";
import { h } from "../dom.js";

export function subgraphControls(store) {
  const group = h(
    "button",
    { class: "small", type: "button", title: "Mark nodes, then press again (or hold g)" },
    "Group",
  );
  group.addEventListener("click", () =>
    store.get("grouping") ? finishGrouping(store) : beginGrouping(store),
  );
  const hint = h("span", { class: "muted count grouping-hint", role: "status" });
  store.subscribe(["grouping"], () => {
    hint.textContent = store.get("grouping") ? "Click nodes, then let go of g, or press it again" : "";
    hint.title = hint.textContent;
    group.textContent = store.get("grouping") ? `Merge ${store.get("grouping").length}` : "Group";
    group.setAttribute("aria-pressed", String(store.get("grouping") !== null));
  });
  const layouts = h(
    "select",
    {
      class: "small-select",
      "aria-label": "Layout of the subgraph",
      title: "How boxes are arranged; those that were dragged stay where they are",
      onchange: () => store.set({ boxLayout: layouts.value }),
    },
    ...Object.entries(LAYOUTS).map(([value, name]) => h("option", { value }, name)),
  );
  store.subscribe(["boxLayout"], () => {
    layouts.value = store.get("boxLayout");
  });
  const sticky = h("input", { type: "checkbox", onchange: () => setSticky(store, sticky.checked) });
  sticky.checked = store.get("sticky");
  store.subscribe(["sticky"], () => {
    sticky.checked = store.get("sticky");
  });
  return [
    hint,
    layouts,
    h("label", { class: "check", title: "Boxes stay where they are dragged; off frees all of them" }, sticky, "sticky"),
    h(
      "button",
      { class: "small", type: "button", title: "Forget where boxes were dragged", onclick: () => freeBoxes(store) },
      "Arrange",
    ),
    group,
    h("button", { class: "small", type: "button", onclick: () => unpinAll(store) }, "Unpin all"),
  ];
}
