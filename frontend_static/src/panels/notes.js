/* Free text about the graph and about single nodes, saved with the graph. */

import { hover, select, setNote } from "../actions.js";
import { glyph, h } from "../dom.js";
import { nodeLabel, nodePlace } from "../format.js";

export function notesPanel(element, store) {
  const graphField = field("Notes on this graph", "What you found, what you'd try next …", (text) =>
    setNote(store, null, text),
  );
  const nodeName = h("strong", { dir: "auto" });
  const nodeField = field("Note on the selected node", "", (text) => setNote(store, store.get("selected"), text));
  const nodePart = h("div", { class: "note-part" }, h("h3", {}, "Selected: ", nodeName), nodeField);
  const list = h("ul", { class: "note-list" });
  const listPart = h("div", { class: "note-part" }, h("h3", {}, "Notes on nodes"), list);
  const graphPart = h("div", { class: "note-part" }, h("h3", {}, "This graph"), graphField);
  element.append(h("div", { class: "notes scroll" }, graphPart, nodePart, listPart));

  function render() {
    const [graph, notes] = [store.get("graph"), store.get("notes")];
    const node = graph?.node(store.get("selected"));
    fill(graphField, notes.graph);
    nodePart.hidden = !node;
    if (node) {
      nodeName.textContent = nameOf(store, node);
      nodeField.id = "node-note";
      fill(nodeField, notes.nodes[node.id] ?? "");
    }
    const noted = graph ? Object.keys(notes.nodes).map((id) => graph.node(id)).filter(Boolean) : [];
    listPart.hidden = noted.length === 0;
    list.replaceChildren(...noted.map((other) => entry(store, other, notes.nodes[other.id])));
  }

  const keys = ["graph", "notes", "selected", "labels", "featureLabels"];
  const dispose = store.subscribe(keys, render);
  render();
  return dispose;
}

function field(name, placeholder, change) {
  const area = h("textarea", {
    class: "note",
    rows: "3",
    "aria-label": name,
    placeholder,
    maxlength: "20000",
    dir: "auto",
    oninput: () => change(area.value),
    onkeydown: (event) => event.key === "Escape" && area.blur(),
  });
  return area;
}

/** Setting the same text again would move the cursor. */
function fill(area, text) {
  if (area.value !== text) area.value = text;
}

function nameOf(store, node) {
  return nodeLabel(node, store.get("labels"), store.get("featureLabels")[node.code]);
}

function entry(store, node, text) {
  return h(
    "li",
    {},
    h(
      "button",
      {
        class: "note-entry",
        type: "button",
        onclick: () => select(store, node.id, { toggle: false }),
        onpointerenter: () => hover(store, node.id),
        onpointerleave: () => hover(store, null),
      },
      h("span", { class: "note-node" }, glyph(node.kind), " ", nameOf(store, node), h("span", { class: "muted" }, ` ${nodePlace(node)}`)),
      h("span", { class: "note-text", dir: "auto" }, text),
    ),
  );
}
