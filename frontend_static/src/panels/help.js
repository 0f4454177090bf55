/* The list of keys and gestures, as a dialog. */

import { h } from "../dom.js";
import { TERMS } from "../glossary.js";

const ENTRIES = [
  ["Click", "select a node; click the background to clear"],
  ["Ctrl-click, p", "pin to the subgraph"],
  ["↑ ↓", "follow the strongest link, up to outputs or down to inputs"],
  ["← →", "follow the next stronger or weaker link instead"],
  ["/", "search nodes"],
  ["hold g", "click nodes, release: they become one supernode; type its name"],
  ["tap g", "the same with keys alone: Enter marks the selected node, g merges, Esc cancels"],
  ["e", "edit the selected feature's label, or the supernode's"],
  ["double click", "rename a supernode or a label; on the graph: show all of it; on a panel's head: enlarge it"],
  ["wheel, pinch, drag", "zoom and move the graph or the subgraph; Shift with the wheel zooms horizontally only (with many tokens, the wheel alone does)"],
  ["Shift", "hold to keep the details of what is under the pointer"],
  ["u, Shift-u", "undo, redo (also Ctrl-z, Ctrl-Shift-z, Ctrl-y)"],
  ["i, hold Meta", "show everything that the file has on a node, in its tooltip"],
  ["r", "prune nodes and links with two sliders, below curves of what is kept; Shift makes arrow keys finer"],
  ["o", "all graphs of the folder: search, add a file, rename, copy, delete"],
  ["n", "trace a new prompt, if the server has a model"],
  ["under Heads", "click a head of the map: only the links through it; click a chip: why it looks there; click a token: another key, with Shift to compare two"],
  ["t", "light or dark"],
  ["Esc", "clear the selection"],
  ["⠿", "drag it to move a panel; arrow keys move, with Shift resize, Enter opens the menu: pictures, tabs, layout"],
  ["on a box", "arrows go to the next box, Enter selects, Shift with an arrow moves, + and − open and close a supernode, Delete unpins or dissolves"],
  ["in a list", "arrow keys go from row to row; Tab leaves it"],
];

const LABELS = [
  ["Dallas · Houston …", "active on these words; … means also on others"],
  ["is, after Dallas · Houston", "active on “is” where one of these words came before"],
  ["before Austin", "active where this is the next word"],
  ["Dallas · Houston → Texas", "active on these words, and raises the token after the arrow"],
];

const definitions = (pairs) => h("dl", {}, ...pairs.flatMap(([term, meaning]) => [h("dt", {}, term), h("dd", {}, meaning)]));

/** Opens the help at its beginning, or at one of its parts: `help-labels`. */
export function showHelp(part = "help-keys") {
  const dialog = document.querySelector("dialog.help");
  if (!dialog.open) dialog.showModal();
  document.getElementById(part).scrollIntoView({ block: "start" });
}

/** Scrolls to the terms; the address holds the view, so that the link itself must not change it. */
function toTerms(event) {
  event.preventDefault();
  document.getElementById("help-terms").scrollIntoView({ block: "start" });
}

export function helpDialog() {
  const dialog = h(
    "dialog",
    { class: "help sheet", "aria-label": "Help" },
    h("p", {}, h("a", { href: "#help-terms", onclick: toTerms }, "Terms"), ": feature, error, influence, supernode and the others."),
    h("h2", { id: "help-keys" }, "Keys and gestures"),
    definitions(ENTRIES),
    h("h3", {}, "How to read the graph"),
    h(
      "p",
      {},
      "Columns are tokens, rows are layers, the output is on top. ● is a feature, ◆ an error (what the transcoders don't explain), ■ a token or an output.",
    ),
    h(
      "p",
      {},
      "Paths lists the strongest chains of links from a token to an output; point at one to see it in the graph.",
    ),
    h(
      "p",
      {},
      "A link is a direct effect, as a share of its target's total input: green promotes, purple suppresses. Darker nodes explain more of the output.",
    ),
    h(
      "p",
      {},
      "A node's influence is its own share of all influence on the outputs, over all paths. The cumulative influence adds that of every more influential node; files are pruned by it. “≤” marks a share for which the file gives only an upper bound.",
    ),
    h("h3", { id: "help-labels" }, "How labels are made"),
    h(
      "p",
      {},
      "A proposed label is counted, not guessed: words that stand out where the feature is strongly active, and tokens that it raises. It says when a feature is active, not what it means. Your own label (e or a double click) replaces it everywhere.",
    ),
    definitions(LABELS),
    h("h3", { id: "help-terms" }, "Terms"),
    definitions(TERMS),
    h("form", { method: "dialog" }, h("button", { class: "small" }, "Close")),
  );
  dialog.addEventListener("click", (event) => event.target === dialog && dialog.close());
  return dialog;
}
