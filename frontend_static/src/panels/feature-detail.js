/* One feature: its label, statistics, the tokens it promotes and suppresses, and examples of where it is active. */

import { explain, select, setLabel, togglePin } from "../actions.js";
import { raise } from "../arrangement.js";
import { editInPlace, glyph, h } from "../dom.js";
import { influenceTitle, nodeLabel, nodePlace, number, ownInfluence, percent, percentile, showToken, tokenLabel } from "../format.js";
import { differenceCaveat } from "../difference.js";
import { neuronpediaAddress } from "../neuronpedia.js";
import { canExplain } from "../rooted.js";
import { exampleGroups } from "./examples.js";
import { attributeDetails } from "./attribute-table.js";
import { showHelp } from "./help.js";
import { usualDrivers } from "../usual.js";
import { histogram } from "./histogram.js";
import { nodeSummary } from "./node-summary.js";
import { whyNotLists } from "./why-not.js";

const HOVER_DELAY = 180;

/** `features.read(layer, feature) -> Promise<record>` is given by main; it remembers what it has read. */
export function featureDetail(element, store, { features, attributes }) {
  const body = h("div", { class: "feature-detail scroll" });
  element.append(body);
  let shown = null;
  let timer = 0;

  const all = (node) => attributeDetails(store, node, attributes.ask);

  function subject() {
    const graph = store.get("graph");
    return graph?.node(store.get("hovered")) ?? graph?.node(store.get("selected")) ?? null;
  }

  function update() {
    window.clearTimeout(timer);
    const delay = store.get("hovered") && store.get("hovered") !== store.get("selected") ? HOVER_DELAY : 0;
    timer = window.setTimeout(() => show(subject()), delay);
  }

  async function show(node, again = false) {
    if (shown === node && !again) return;
    // Whoever is typing a label keeps the field; what came meanwhile is shown when they are done.
    const field = body.querySelector(".edit-field");
    if (field) return field.addEventListener("blur", () => window.setTimeout(() => show(subject(), true)));
    shown = node;
    if (!node) return body.replaceChildren(emptyState());
    const head = heading(store, node);
    if (node.kind !== "feature") return body.replaceChildren(head, explanation(node), ...caveats(store, node), ...(node.difference ? whyNotLists(store, node) : []), ...nodeSummary(store, node), all(node));
    const rest = h("div", { class: "detail-body" }, h("p", { class: "muted none" }, "Reading examples …"));
    const known = features.known(node.layer, node.feature);
    body.replaceChildren(head, ...(known === undefined ? [rest] : details(store, node, known, features, store.get("labelOrigins")[node.code])), all(node));
    if (known !== undefined) return;
    try {
      const record = await features.read(node.layer, node.feature);
      if (shown !== node) return;
      rest.replaceWith(...details(store, node, record, features, store.get("labelOrigins")[node.code]));
      if (!body.querySelector(".edit-field")) head.replaceWith(heading(store, node));
    } catch (error) {
      if (shown === node) rest.replaceChildren(failed(error));
    }
  }

  function editLabel() {
    if (!store.get("editing") || store.get("wholeGroup")) return;
    store.set({ editing: false });
    raise(store, "feature");
    show(store.get("graph").node(store.get("selected")));
    body.querySelector(".edit-label")?.click();
  }

  const disposers = [
    store.subscribe(["selected", "hovered", "graph"], update),
    store.subscribe(["labels", "theme", "pinned", "notes"], () => show(shown, true)),
    store.subscribe(["pruned", "visible", "featureLabels"], () => shown && shown.kind !== "feature" && show(shown, true)),
    store.subscribe(["editing"], editLabel),
  ];
  show(null, true);
  return () => disposers.forEach((dispose) => dispose());
}

function emptyState() {
  return h(
    "div",
    { class: "empty" },
    h("p", {}, "Details of the feature under the pointer, or of the selected one, appear here."),
  );
}

function heading(store, node) {
  const label = nodeLabel(node, store.get("labels"), store.get("featureLabels")[node.code]);
  const title = h("strong", { class: "detail-label", dir: "auto" }, label);
  const isFeature = node.kind === "feature";
  const edit = () =>
    editInPlace(title, store.get("labels")[node.code] ?? node.clerp, (text) => {
      setLabel(store, node.code, text === node.clerp ? "" : text);
    });
  if (isFeature) title.addEventListener("dblclick", edit);
  const note = store.get("notes").nodes[node.id];
  const elsewhere = neuronpediaAddress(store.get("graph").metadata, node);
  const place = isFeature
    ? `Layer ${node.layer} · feature ${node.feature} · on “${tokenLabel(node.token)}”`
    : nodePlace(node);
  return h(
    "div",
    { class: "detail-head" },
    h("div", { class: "detail-title" }, glyph(node.kind), title),
    h("div", { class: "muted detail-place" }, place, isProposed(store, node) && [" · ", proposedMark()]),
    note && h("p", { class: "detail-note", dir: "auto" }, note),
    h(
      "div",
      { class: "detail-actions" },
      elsewhere &&
        h(
          "a",
          { class: "small", href: elsewhere, target: "_blank", rel: "noopener noreferrer", title: "Opens another site" },
          "Neuronpedia ↗",
        ),
      explainButton(store, node),
      h(
        "button",
        {
          class: "small",
          type: "button",
          title: "Write a note on this node",
          onclick: () => {
            if (store.get("selected") !== node.id) select(store, node.id, { toggle: false });
            raise(store, "notes");
            document.getElementById("node-note")?.focus();
          },
        },
        "Note",
      ),
      isFeature &&
        h(
          "button",
          { class: "small edit-label", type: "button", title: "Edit the label (e)", onclick: edit },
          "Edit label",
        ),
      h(
        "button",
        {
          class: "small",
          type: "button",
          title: store.get("pinned").includes(node.id) ? "Take out of the subgraph (p)" : "Pin to the subgraph (p)",
          onclick: () => togglePin(store, node.id),
        },
        store.get("pinned").includes(node.id) ? "Unpin" : "Pin",
      ),
      store.get("selected") !== node.id &&
        h(
          "button",
          { class: "small", type: "button", onclick: () => select(store, node.id, { toggle: false }) },
          "Select",
        ),
    ),
  );
}

/** Puts a node in the place of the outputs, or the outputs in its place again. */
function explainButton(store, node) {
  const [graph, isRoot] = [store.get("graph"), store.get("root") === node.id];
  if (!isRoot && !canExplain(graph, node)) return null;
  const title = isRoot ? "Explain the outputs of the graph again" : "What is behind this node: influence, shares, paths and pruning are then about it";
  return h("button", { class: "small", type: "button", title, onclick: () => explain(store, isRoot ? null : node.id) }, isRoot ? "Explain the outputs" : "Explain this node");
}

/** Whether the label that is shown was made from examples or by the trace, and nobody has given another. */
function isProposed(store, node) {
  const given = store.get("labels")[node.code] || node.clerp;
  const origin = store.get("labelOrigins")[node.code]?.provenance;
  const proposed = Boolean(store.get("featureLabels")[node.code] || node.proposed);
  return node.kind === "feature" && !given && proposed && !["user", "imported"].includes(origin);
}

function proposedMark() {
  const title = "Made from examples and promoted tokens. How to read it";
  return h("button", { class: "link-button", type: "button", title, onclick: () => showHelp("help-labels") }, "proposed label");
}

/** What stands in the way of believing the links of a difference. */
function caveats(store, node) {
  if (!node.difference) return [];
  const graph = store.get("graph");
  const [a, b] = [node.difference.a, node.difference.b].map((id) => graph.node(id));
  const caveat = differenceCaveat(graph, { a, b });
  return caveat ? [h("p", { class: caveat.isEmpty ? "caveat" : "muted caveat" }, caveat.text)] : [];
}

function explanation(node) {
  const texts = {
    error:
      "What the transcoder doesn't explain of this layer's output here. It has no examples: it is a different vector in every prompt.",
    token: `Token ${node.position} of the prompt, as it enters the model: “${showToken(node.token)}”.`,
    logit: node.difference
      ? "What raises the first output over the second: each link here is the link into the first minus the link into the second."
      : `An output that the graph explains, with probability ${percent(node.probability ?? 0)}.`,
  };
  return h("p", { class: "muted explanation" }, texts[node.kind]);
}

function failed(error) {
  return h(
    "div",
    { class: "empty" },
    h("p", {}, "The examples couldn't be read."),
    h("p", { class: "muted" }, [error.message, error.hint].filter(Boolean).join(" – ")),
  );
}

function absent(node, { reason, hint }) {
  const why = [reason && sentence(reason), hint && sentence(hint)].filter(Boolean).join(" ");
  return h(
    "div",
    {},
    statistics(node, {}),
    predictions(node.effects),
    drivers(node),
    node.proposed && h("p", { class: "muted origin", dir: "auto" }, `Proposed label “${node.proposed}” (${node.provenance || "unknown origin"}).`),
    h(
      "div",
      { class: "empty" },
      h("p", {}, "No examples for this feature."),
      h("p", { class: "muted", dir: "auto" }, why),
    ),
  );
}

function sentence(text) {
  return `${text.charAt(0).toUpperCase()}${text.slice(1)}${/[.!?]$/.test(text) ? "" : "."}`;
}

function details(store, node, record, features, given) {
  const about = features.about(node.layer, node.feature);
  if (record === null) return [absent(node, about), labelOrigin(given)].filter(Boolean);
  return [
    h("div", { class: "detail-numbers" }, statistics(node, record), histogram(record, node.activation)),
    predictions(record.top_logits?.length ? record : node.effects),
    drivers(node),
    usual(store, node, record),
    exampleGroups(record),
    labelOrigin(given),
    origin(record),
  ].filter(Boolean);
}

/** Where the label and the examples come from, so that a wrong folder of examples is noticed. */
function origin({ label, transcoder_id: set }) {
  const facts = [
    label?.text && `Proposed label “${label.text}” (${label.provenance ?? "unknown origin"}).`,
    set && `Examples of ${set}.`,
  ].filter(Boolean);
  return facts.length ? h("p", { class: "muted origin", dir: "auto" }, facts.join(" ")) : null;
}

/** Who gave the feature its label in another graph of the set, and when. */
function labelOrigin(label) {
  if (!label || !["user", "imported"].includes(label.provenance)) return null;
  const who = label.author ? ` by ${label.author}` : "";
  const when = Number.isFinite(label.time_ms) ? ` on ${new Date(label.time_ms).toLocaleDateString()}` : "";
  const how = label.provenance === "imported" ? "imported" : "given";
  return h("p", { class: "muted origin", dir: "auto" }, `Label “${label.text}” of this transcoder set, ${how}${who}${when}.`);
}

function statistics(node, record) {
  const facts = [];
  if (node.activation !== null) facts.push(["Activation", number(node.activation)]);
  if (node.activation !== null && record.quantile_values?.length)
    facts.push(["Percentile", String(percentile(record.quantile_values, node.activation))]);
  if (Number.isFinite(record.activation_frequency))
    facts.push(["Active on", `${percent(record.activation_frequency)} of tokens`]);
  if (node.influence !== null) facts.push(["Influence", ownInfluence(node), influenceTitle(node)]);
  return h(
    "dl",
    { class: "facts" },
    ...facts.map(([name, value, title]) => h("div", { title }, h("dt", {}, name), h("dd", {}, value))),
  );
}

const USUAL = "At the same position and without attention, on the texts of the examples, where this feature is active";

/** What usually drives a feature, and what does so here. */
function usual(store, node, record) {
  const rows = usualDrivers(store.get("graph"), node, record, store.get("labels"), store.get("featureLabels"));
  if (rows.length === 0) return null;
  const cells = rows.map(({ id, label, weight, together, here, isNode }) =>
    h(
      "tr",
      { "data-source": id },
      h("th", { scope: "row", dir: "auto", title: id }, isNode ? h("button", { class: "link-button", type: "button", onclick: () => select(store, id, { toggle: false }) }, label) : label),
      h("td", {}, number(weight)),
      h("td", {}, percent(together)),
      h("td", {}, here === null ? "–" : number(here)),
    ),
  );
  const head = [["Usually driven by", USUAL], ["usual", "The mean effect, weighted with this feature's activation"], ["together", "Share of this feature's tokens at which the other is active too"], ["here", "The link in this graph; – if there is none"]];
  return h(
    "table",
    { class: "usual-drivers", "aria-label": "Usual drivers" },
    h("thead", {}, h("tr", {}, ...head.map(([name, title]) => h("th", { scope: "col", title }, name)))),
    h("tbody", {}, ...cells),
  );
}

/** The prompt's tokens behind a node, over all paths. */
function drivers(node) {
  if (!node.drivenBy.length) return null;
  const chips = node.drivenBy.map(([token, position, share]) =>
    h("li", { class: "token-chip", dir: "auto", title: `Token ${position}: ${percent(share)} of this feature's input, over all paths` }, `${showToken(token)} ${percent(share)}`),
  );
  return h("div", { class: "predictions" }, h("div", { class: "prediction-row" }, h("h3", {}, "Driven by"), h("ul", {}, ...chips)));
}

function predictions({ top_logits: top, bottom_logits: bottom }) {
  const lists = [
    ["Promotes", top, "positive"],
    ["Suppresses", bottom, "negative"],
  ].filter(([, tokens]) => tokens?.length);
  if (lists.length === 0) return null;
  return h(
    "div",
    { class: "predictions" },
    ...lists.map(([name, tokens, sign]) =>
      h(
        "div",
        { class: "prediction-row" },
        h("h3", {}, name),
        h(
          "ul",
          {},
          ...tokens.map((token) =>
            h("li", { class: `token-chip ${sign}`, dir: "auto" }, showToken(String(token))),
          ),
        ),
      ),
    ),
  );
}
