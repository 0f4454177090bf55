/* Buttons of the subgraph's header. */

import { beginGrouping, finishGrouping, freeBoxes, unpinAll } from "../actions.js";
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
  store.subscribe(["grouping"], () => {
    group.textContent = store.get("grouping") ? `Merge ${store.get("grouping").length}` : "Group";
    group.setAttribute("aria-pressed", String(store.get("grouping") !== null));
  });
  return [
    group,
    h(
      "button",
      {
        class: "small",
        type: "button",
        title: "Forget where boxes were dragged",
        onclick: () => freeBoxes(store),
      },
      "Arrange",
    ),
    h("button", { class: "small", type: "button", onclick: () => unpinAll(store) }, "Unpin all"),
  ];
}
