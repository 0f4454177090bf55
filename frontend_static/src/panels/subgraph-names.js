/* Which of a graph's subgraphs is shown, and what can be done with them. */

import { editInPlace, h } from "../dom.js";
import { openMenu } from "../menu.js";
import { addedEdit, names, removedEdit, renamedEdit, shownEdit } from "../subgraphs.js";

const KEYS = ["pinned", "supernodes", "positions", "boxFrame", "expanded", "subgraphs", "subgraphName"];

export function subgraphNames(store) {
  const state = () => Object.fromEntries(KEYS.map((key) => [key, store.get(key)]));
  const edit = (make, ...words) => () => {
    const patch = make(store.get("graph"), state(), ...words);
    if (patch) store.edit(patch);
  };
  const text = h("span", { class: "subgraph-name" });
  const button = h(
    "button",
    { class: "small", type: "button", "aria-haspopup": "menu", "aria-expanded": "false", title: "Subgraphs of this graph", onclick: open },
    text,
  );
  function open() {
    if (!store.get("graph") || button.querySelector("input")) return;
    const all = names(state());
    const shown = store.get("subgraphName") || all[0];
    openMenu(button, [
      ...all.map((name) => ({ label: name, checked: name === shown, run: name === shown ? () => {} : edit(shownEdit, name) })),
      null,
      { label: "New subgraph", run: edit(addedEdit, false) },
      { label: "Duplicate", run: edit(addedEdit, true) },
      { label: "Rename …", run: () => editInPlace(text, shown, (name) => edit(renamedEdit, name)(), { name: "Name of the subgraph" }) },
      { label: "Delete", disabled: all.length < 2, run: edit(removedEdit) },
    ]);
  }
  const render = () => {
    const [first] = names(state());
    text.textContent = store.get("subgraphName") || first;
  };
  store.subscribe(["subgraphs", "subgraphName", "graph"], render);
  render();
  return button;
}
