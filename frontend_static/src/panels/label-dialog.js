/* Imports labels from a file into the set, after showing what that would change. */

import { h } from "../dom.js";
import { uncantor } from "../graph.js";
import { compareLabels, provenance } from "../label-exchange.js";

const MOST = 200;

/** A dialog; `ask({labels, set, unread}, ours, name)` gives `"add"`, `"replace"` or null, once a person has chosen. */
export function labelDialog() {
  const body = h("div", { class: "info-body" });
  const dialog = h("dialog", { class: "sheet label-import", "aria-label": "Import shared labels" }, body);
  dialog.addEventListener("click", (event) => event.target === dialog && dialog.close());

  function ask(file, ours, { name, scan }) {
    const found = compareLabels(file.labels, ours);
    const many = found.conflicts.length;
    const choose = (value, text, disabled = false) =>
      h("button", { class: "small", type: "button", disabled, onclick: () => dialog.close(value) }, text);
    dialog.returnValue = "";
    body.replaceChildren(
      h("h2", {}, "Import shared labels"),
      h("p", {}, summary(found, name)),
      ...notes(file, scan).map((text) => h("p", { class: "warn" }, text)),
      ...(many > 0 ? [conflictTable(found.conflicts)] : []),
      h(
        "div",
        { class: "dialog-buttons" },
        choose("add", many > 0 ? `Add ${found.added.length}, keep mine where they differ` : `Add ${found.added.length}`, found.added.length === 0),
        ...(many > 0 ? [choose("replace", `Replace mine with all of them (${many} change)`)] : []),
        choose("", "Cancel"),
      ),
    );
    dialog.showModal();
    return new Promise((resolve) => {
      dialog.addEventListener("close", () => resolve(dialog.returnValue || null), { once: true });
    });
  }
  return { dialog, ask };
}

function summary({ added, same, conflicts }, name) {
  const parts = [
    `${added.length} new`,
    `${same.length} the same as here`,
    `${conflicts.length} for features that have a different label here`,
  ];
  return `${name} has ${parts.join(", ")}. They are for every graph of this transcoder set.`;
}

function notes({ set, unread }, scan) {
  return [
    set !== null && set !== scan && `The labels were made for another set: ${set}. The same indices are other features there.`,
    unread > 0 && `${unread} unreadable entries are left out.`,
  ].filter(Boolean);
}

function conflictTable(conflicts) {
  const rows = conflicts.slice(0, MOST).map(({ code, theirs, ours }) => {
    const [layer, feature] = uncantor(Number(code));
    return h(
      "tr",
      {},
      h("th", { scope: "row" }, `L${layer} · ${feature}`),
      labelCell(ours),
      labelCell(theirs),
    );
  });
  const head = ["Feature", "Here", "In the file"].map((text) => h("th", { scope: "col" }, text));
  const rest = conflicts.length - rows.length;
  return h(
    "div",
    { class: "scroll conflicts", tabindex: "0", role: "region", "aria-label": "Labels that differ" },
    h("table", {}, h("thead", {}, h("tr", {}, ...head)), h("tbody", {}, ...rows)),
    rest > 0 && h("p", { class: "muted" }, `and ${rest} more`),
  );
}

function labelCell(label) {
  return h("td", {}, h("span", { dir: "auto", class: "label-text" }, label.text), h("span", { class: "muted" }, provenance(label)));
}
