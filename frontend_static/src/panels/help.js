/* The list of keys and gestures, as a dialog. */

import { h } from "../dom.js";

const ENTRIES = [
  ["Click", "select a node; click beside it to clear"],
  ["Ctrl-click, p", "pin to the subgraph"],
  ["↑ ↓", "go along the strongest link, up to outputs or down to inputs"],
  ["← →", "the next stronger or weaker link instead"],
  ["/", "search nodes"],
  ["hold g", "click nodes, release: they become one supernode; type its name"],
  ["tap g", "the same with keys alone: Enter marks the selected node, g merges, Esc gives up"],
  ["e", "edit the selected feature's label, or the supernode's"],
  ["double click", "rename a supernode or a label; on the graph: see all of it; on a panel's head: enlarge it"],
  ["wheel, drag", "zoom and move the graph"],
  ["Shift", "hold to keep what is under the pointer"],
  ["u, Shift-u", "undo, redo (also Ctrl-z, Ctrl-Shift-z, Ctrl-y)"],
  ["i, hold Meta", "everything that the file says about a node, in its tooltip"],
  ["r", "prune: two sliders, for nodes and links, below the curves of what they would leave; Shift makes arrow keys finer"],
  ["t", "light or dark"],
  ["Esc", "clear the selection"],
  ["⠿", "drag it to move a panel; arrow keys move, with Shift resize, Enter opens the menu: pictures, tabs, layout"],
  ["on a box", "Enter selects, Shift with an arrow moves, Delete unpins or dissolves"],
];

export function helpDialog() {
  const dialog = h(
    "dialog",
    { class: "help sheet", "aria-label": "Help" },
    h("h2", {}, "Keys and gestures"),
    h("dl", {}, ...ENTRIES.flatMap(([keys, meaning]) => [h("dt", {}, keys), h("dd", {}, meaning)])),
    h("h3", {}, "How to read the graph"),
    h(
      "p",
      {},
      "Columns are tokens, rows are layers, the output is on top. ● is a feature, ◆ an error (what the transcoders don't explain), ■ a token or an output.",
    ),
    h(
      "p",
      {},
      "Under Paths are the strongest chains of links from a token to an output; the one under the pointer is shown in the graph.",
    ),
    h(
      "p",
      {},
      "A link is a direct effect, as a share of everything that enters its target: green promotes, purple suppresses. Darker nodes explain more of the output.",
    ),
    h("form", { method: "dialog" }, h("button", { class: "small" }, "Close")),
  );
  dialog.addEventListener("click", (event) => event.target === dialog && dialog.close());
  return dialog;
}
