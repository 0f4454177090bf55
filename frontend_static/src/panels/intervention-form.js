/* The form of a run: rows of features with their new values, and how the model is run. */

import { selectedIndices } from "../actions.js";
import { h, icon } from "../dom.js";
import { nodeLabel, nodePlace } from "../format.js";
import { PRESETS, SPREADS, VALUES, editable, makeRow, readValue, runStatus, showValue, withRow } from "../interventions.js";

const MOST_TOKENS = 64;

/** `set(patch)` changes the form and draws it anew, `keep(patch)` only changes it; `start()` and `cancel()` a run. */
export function editRows(store, graph, form, { set, keep, start, cancel }) {
  const chosen = selectedIndices(store).map((index) => graph.nodes[index]);
  const group = store.get("wholeGroup") && store.get("supernodes").find(([, ...ids]) => ids.includes(store.get("selected")));
  const label = group ? group[0] : chosen.length === 1 ? labelOf(store, chosen[0]) : "";
  const addition = makeRow(chosen, label);
  const pinned = store.get("pinned").map((id) => graph.node(id)).filter(editable);
  const add = (value) => set({ rows: withRow(form.rows, { ...addition, value }) });
  const busy = ["queued", "running"].includes(form.run?.state);
  return [
    h(
      "div",
      { class: "edit-add" },
      h("span", { class: "edit-subject", dir: "auto" }, addition ? label : "Select a feature or a supernode"),
      ...PRESETS.map((value) =>
        h("button", { class: "small", type: "button", disabled: !addition, onclick: () => add(value) }, showValue(value)),
      ),
      h(
        "button",
        {
          class: "small",
          type: "button",
          disabled: pinned.length === 0,
          title: "One row for each pinned feature",
          onclick: () => set({ rows: pinned.reduce((rows, node) => withRow(rows, makeRow([node], labelOf(store, node))), form.rows) }),
        },
        "All pinned",
      ),
    ),
    ...form.rows.map((row) => editRow(graph, row, form, { set, keep })),
    settingsLine(form, { set, keep }),
    h(
      "div",
      { class: "edit-add" },
      h("button", { class: "small run", type: "button", disabled: busy || form.rows.length === 0, onclick: start }, "Run"),
      busy && h("button", { class: "small", type: "button", onclick: cancel }, "Cancel"),
      h("span", { class: "muted" }, busy ? runStatus(form.run) : form.run?.state === "cancelled" ? "Cancelled" : ""),
    ),
  ].filter(Boolean);
}

const labelOf = (store, node) => nodeLabel(node, store.get("labels"), store.get("featureLabels")[node.code]);

function editRow(graph, row, form, { set, keep }) {
  const others = () => form.rows.filter(({ key }) => key !== row.key);
  const replaced = (patch) => form.rows.map((other) => (other.key === row.key ? { ...other, ...patch } : other));
  const onward = h("input", { type: "checkbox", onchange: () => set({ rows: replaced({ onward: onward.checked }) }) });
  onward.checked = row.onward;
  const place = row.ids.length === 1 ? nodePlace(graph.node(row.ids[0])) : `${row.ids.length} features`;
  return h(
    "div",
    { class: "edit-row" },
    h("span", { class: "node-name", dir: "auto", title: row.label }, row.label),
    h("span", { class: "muted edit-place" }, place, row.left > 0 && `, ${row.left} others stay`),
    valueField(row, (patch) => keep({ rows: replaced(patch) })),
    h("label", { class: "muted", title: "Also at every later position, including generated tokens" }, onward, " onward"),
    h(
      "button",
      { class: "small quiet", type: "button", "aria-label": `Don't edit ${row.label}`, onclick: () => set({ rows: others() }) },
      icon("cross"),
    ),
  );
}

/** A text that is no value stays as it was typed, and is marked. */
function valueField(row, keep) {
  const field = h("input", {
    class: "value-field",
    "aria-label": `New value of ${row.label}`,
    title: VALUES,
    oninput: () => {
      const value = readValue(field.value);
      keep({ value: value ?? row.value, wrong: value === null ? field.value : null });
      field.setAttribute("aria-invalid", String(value === null));
    },
    onchange: () => {
      field.value = readValue(field.value) ?? field.value;
    },
    onkeydown: (event) => {
      event.stopPropagation();
      if (event.key === "Enter") field.blur();
    },
  });
  field.value = row.wrong ?? row.value;
  field.setAttribute("aria-invalid", String((row.wrong ?? null) !== null));
  return field;
}

function settingsLine(form, { set, keep }) {
  const change = (patch) => keep({ settings: { ...form.settings, ...patch } });
  const spread = h(
    "select",
    { class: "small-select", "aria-label": "How effects spread", onchange: () => set({ settings: { ...form.settings, spread: spread.value } }) },
    ...Object.entries(SPREADS).map(([name, { title }]) => h("option", { value: name, selected: name === form.settings.spread }, title)),
  );
  const part = (name, label, field, unit = "") =>
    h("label", {}, h("span", { class: "muted" }, `${label} `), field, unit && h("span", { class: "muted" }, ` ${unit}`));
  const count = (name, { least = 0, most, whole = true, title }) => {
    const field = h("input", {
      class: "count-field",
      type: "number",
      min: String(least),
      max: most === undefined ? null : String(most),
      step: whole ? "1" : "any",
      value: String(form.settings[name]),
      title,
      onchange: () => {
        const number = Math.max(least, Math.min(most ?? Infinity, Number(field.value) || 0));
        const value = whole ? Math.round(number) : number;
        field.value = String(value);
        change({ [name]: value });
        seed.disabled = form.settings.temperature === 0;
      },
      onkeydown: (event) => event.stopPropagation(),
    });
    return field;
  };
  const generate = count("generate", { most: MOST_TOKENS, title: "Number of tokens to generate, with and without the edits" });
  const temperature = count("temperature", { whole: false, title: "Divides the logits before sampling; 0 takes the most likely token" });
  const seed = count("seed", { most: Number.MAX_SAFE_INTEGER, title: "The same seed samples the same tokens" });
  seed.disabled = form.settings.temperature === 0;
  return h(
    "div",
    { class: "edit-add" },
    part("spread", "effects", spread),
    part("generate", "continue by", generate, "tokens"),
    part("temperature", "temperature", temperature),
    part("seed", "seed", seed),
  );
}
