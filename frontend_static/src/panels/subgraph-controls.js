/* Buttons of the subgraph's header. */

import { beginGrouping, finishGrouping, freeBoxes, unpinAll } from "../actions.js";
import { h, icon } from "../dom.js";
import { discardDrafts, propose } from "../drafts.js";
import { openMenu } from "../menu.js";
import { subgraphNames } from "./subgraph-names.js";

export function subgraphControls(store) {
  const hint = h("span", { class: "muted count grouping-hint", role: "status" });
  const group = h("button", { class: "small", type: "button", title: "Mark nodes, then press again (or hold g)" }, "Group");
  group.addEventListener("click", () => (store.get("grouping") ? finishGrouping(store) : beginGrouping(store)));
  const render = () => {
    const { shown, all } = store.get("flowCount");
    const grouping = store.get("grouping");
    hint.textContent = grouping
      ? "Click nodes, then let go of g, or press it again"
      : shown < all
        ? `${shown} of ${all} links`
        : "";
    hint.title = grouping ? hint.textContent : "Only the strongest links are drawn, and those of a selected box. “All links” in the menu draws all of them";
    group.textContent = grouping ? `Merge ${grouping.length}` : "Group";
    group.setAttribute("aria-pressed", String(grouping !== null));
  };
  store.subscribe(["grouping", "flowCount"], render);
  return [hint, subgraphNames(store), zoomButtons(), group, proposeButton(store), viewMenu(store)];
}

function proposeButton(store) {
  const title = "Propose groups of features that have the same inputs and outputs";
  const button = h("button", { class: "small propose-groups", type: "button", title }, "Propose");
  button.addEventListener("click", () => (store.get("drafts") ? discardDrafts(store) : propose(store)));
  store.subscribe(["drafts"], () => button.setAttribute("aria-pressed", String(store.get("drafts") !== null)));
  return button;
}

function zoomButtons() {
  const tell = (name, detail) => (event) => {
    const plot = event.target.closest(".panel").querySelector(".subgraph-plot");
    plot.dispatchEvent(new CustomEvent(name, { detail }));
  };
  const button = (label, drawing, onclick) => h("button", { class: "small", type: "button", "aria-label": label, title: label, onclick }, icon(drawing));
  return h(
    "div",
    { class: "button-row", role: "group", "aria-label": "Zoom" },
    button("Zoom out", "minus", tell("scale", 1 / 1.3)),
    button("Zoom in", "plus", tell("scale", 1.3)),
    button("Show the whole subgraph", "fit", tell("fit")),
  );
}

function viewMenu(store) {
  const toggle = (key) => () => store.set({ [key]: !store.get(key) });
  const button = h(
    "button",
    {
      class: "small",
      type: "button",
      "aria-haspopup": "menu",
      "aria-expanded": "false",
      onclick: () =>
        openMenu(button, [
          { label: "Weights as text", checked: store.get("flowWeights"), run: toggle("flowWeights") },
          { label: "All links", checked: store.get("everyFlow"), run: toggle("everyFlow") },
          null,
          { label: "Arrange: reset dragged boxes", run: () => freeBoxes(store) },
          { label: "Unpin all", run: () => unpinAll(store) },
        ]),
    },
    "View",
  );
  return button;
}
