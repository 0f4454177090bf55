/* Why a head looks where it looks: its pattern from one position as bars over the tokens, and what makes the score of the key that is clicked. */

import { click, hover } from "../actions.js";
import { h } from "../dom.js";
import { number, percent, signed, tokenLabel } from "../format.js";
import { headName, lookAt, sourceName } from "../heads.js";

/** The lines of the section, none without a look. `look` takes the next one, or null. */
export function lookSection(store, graph, own, look) {
  const asked = own.look;
  if (!asked) return [];
  return [
    title(graph, asked, look),
    ...(own.model?.state === "ready" ? [] : [h("p", { class: "muted" }, "Scores need the model: start the page with one to see why the head looks there.")]),
    ...(own.lookFailure ? [h("p", { class: "warn" }, own.lookFailure.error), own.lookFailure.hint && h("p", { class: "muted" }, own.lookFailure.hint)].filter(Boolean) : []),
    ...(own.answer?.row ? [bars(graph, asked, own.answer.row, look)] : []),
    ...(own.looking && !own.answer ? [h("p", { class: "muted", role: "status" }, "Asking the model …")] : []),
    ...(own.answer?.key !== undefined && own.answer?.key !== null && asked.key !== null ? [h("div", { class: own.looking ? "look-why is-waiting" : "look-why", "aria-busy": String(own.looking) }, ...explained(store, graph, own.answer))] : []),
  ];
}

function title(graph, asked, look) {
  const token = (position) => `${position} “${tokenLabel(graph.tokens[position] ?? "", 14)}”`;
  const to = asked.key === null ? "" : ` to ${token(asked.key)}`;
  const against = asked.against === null ? "" : asked.against === "rest" ? ", against the rest" : `, against ${token(asked.against)}`;
  const rest = asked.against === "rest";
  return h(
    "div",
    { class: "heads-title look-title" },
    h("h3", { dir: "auto" }, `${headName(asked)} from ${token(asked.query)}${to}${against}`),
    asked.key !== null &&
      h("button", { class: "small", type: "button", "aria-pressed": String(rest), title: "Compare with all keys, weighted by attention", onclick: () => look({ ...asked, against: rest ? null : "rest" }) }, "Against the rest"),
    h("button", { class: "small quiet", type: "button", "aria-label": "Close", onclick: () => look(null) }, "Close"),
  );
}

function bars(graph, asked, row, look) {
  const most = Math.max(...row.map(({ value }) => value), 1e-9);
  return h(
    "div",
    { class: "look-bars scroll", role: "group", "aria-label": "Attention by token: click a key, Shift-click another to compare" },
    ...row.slice(0, asked.query + 1).map(({ position, value, score }) => {
      const role = position === asked.key ? "key" : position === asked.against ? "against" : position === asked.query ? "query" : "";
      const token = tokenLabel(graph.tokens[position] ?? "", 14);
      return h(
        "button",
        {
          class: "look-bar",
          type: "button",
          "data-role": role,
          "data-position": String(position),
          disabled: score === null,
          title: score === null ? `${position} “${token}” is outside the window` : `${position} “${token}”: ${percent(value)} of the attention, score ${number(score)}. Click: why; Shift-click: compare`,
          onclick: (event) => look(lookAt(asked, position, event.shiftKey)),
        },
        h("span", { class: "look-share" }, value >= 0.005 ? `${Math.round(100 * value)}` : ""),
        h("span", { class: "look-room" }, h("span", { class: "look-fill", style: { height: `${(100 * value) / most}%` } })),
        h("span", { class: "look-token", dir: "auto" }, token),
      );
    }),
  );
}

function explained(store, graph, answer) {
  const cap = answer.softcap_factor === 1 ? "" : ` · soft cap ×${number(answer.softcap_factor)}`;
  const widest = Math.max(1e-9, ...[...answer.q, ...answer.k, ...answer.pairs].map(({ value }) => Math.abs(value)));
  const constants = answer.constants.reduce((sum, { value }) => sum + value, 0);
  return [
    h("p", { class: "muted" }, `${answer.against === null ? "Score" : "Difference of scores"} ${signed(answer.score)} · attention ${percent(answer.pattern)}${cap}`),
    h(
      "div",
      { class: "look-sides" },
      side(store, graph, "Query side, with the whole key", answer.q, answer.q_rest, answer.q_constants, widest),
      side(store, graph, "Key side, with the whole query", answer.k, answer.k_rest, answer.k_constants, widest),
    ),
    h(
      "div",
      { class: "look-pairs" },
      h("h4", {}, "Pairs"),
      ...answer.pairs.map(({ q, k, value }) => pairRow(store, graph, q, k, value, widest)),
      plainRow("other pairs", answer.rest),
      plainRow("with a constant", constants),
    ),
  ];
}

function side(store, graph, name, listed, rest, constants, widest) {
  return h(
    "div",
    {},
    h("h4", {}, name),
    ...listed.map(({ node, value }) => h("div", { class: "look-row" }, source(store, graph, node), amount(value, widest))),
    plainRow("others", rest),
    plainRow("constants", constants),
  );
}

function pairRow(store, graph, q, k, value, widest) {
  const light = () => store.set({ lit: [q, k] });
  const dark = () => store.set({ lit: [] });
  return h(
    "div",
    { class: "look-row look-pair", onpointerenter: light, onpointerleave: dark, onfocusin: light, onfocusout: dark },
    source(store, graph, q, false),
    h("span", { class: "look-cross", "aria-hidden": "true" }, "×"),
    source(store, graph, k, false),
    amount(value, widest),
  );
}

function source(store, graph, id, lights = true) {
  const { node, label, place } = sourceName(graph, id, store.get("labels"), store.get("featureLabels"));
  const content = [h("span", { class: "look-name", dir: "auto" }, label), h("span", { class: "node-place" }, place)];
  if (!node) return h("span", { class: "look-source muted", title: `${id} isn't in this file` }, ...content);
  return h(
    "button",
    {
      class: "look-source",
      type: "button",
      "data-node": id,
      title: `${label} · ${place}`,
      onclick: (event) => click(store, id, event),
      ...(lights ? { onpointerenter: () => hover(store, id), onpointerleave: () => hover(store, null) } : {}),
    },
    ...content,
  );
}

function amount(value, widest) {
  return h(
    "span",
    { class: `look-amount ${value < 0 ? "negative" : "positive"}` },
    h("span", { class: "look-line", "aria-hidden": "true", style: { width: `${(100 * Math.abs(value)) / widest}%` } }),
    h("span", {}, signed(value)),
  );
}

function plainRow(name, value) {
  return h("div", { class: "look-row muted" }, h("span", { class: "look-source" }, name), h("span", { class: "look-amount" }, h("span", {}), h("span", {}, signed(value))));
}
