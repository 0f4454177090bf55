/* Edits on the running model: which features, to what, and what that changes. */

import { h } from "../dom.js";
import { number, percent, showToken } from "../format.js";
import { commandLine, likelyTokens, nodeChanges, runRequest, serveCommand, unreadable } from "../interventions.js";
import { commandBlock } from "./command-block.js";
import { editRows } from "./intervention-form.js";
import { nodeRow } from "./node-row.js";

const POLL = 250;
const LOADING_POLL = 1000;

export function interventions(element, store, { runs }) {
  const form = { rows: [], settings: { spread: "frozen", generate: 8, temperature: 0, seed: 0 }, model: null, run: null, failure: null };
  const status = h("div", { class: "run-status", role: "status" });
  const editor = h("div", { class: "edit-rows" });
  const results = h("div", { class: "run-results" });
  const body = h("div", { class: "interventions scroll" }, status, editor, results);
  element.append(body);
  let timer = 0;
  let latest = 0;

  function set(patch) {
    Object.assign(form, patch);
    render();
  }

  /** What is typed is kept without drawing the form anew, so that a click on Run, which ends the typing, meets the button. */
  const keep = (patch) => Object.assign(form, patch);

  function render() {
    const graph = store.get("graph");
    if (!graph) return body.replaceChildren();
    const ready = ["ready", "loading"].includes(form.model?.state);
    status.replaceChildren(...modelLine(form.model, graph));
    editor.hidden = !ready;
    if (ready && !editor.contains(document.activeElement?.closest(".value-field")))
      editor.replaceChildren(...editRows(store, graph, form, { set, keep, start, cancel }));
    results.replaceChildren(...(ready ? runResults(store, graph, form) : []));
    if (!body.isConnected || body.children.length === 0) body.replaceChildren(status, editor, results);
  }

  async function look() {
    window.clearTimeout(timer);
    try {
      set({ model: await runs.model() });
    } catch (error) {
      set({ model: { state: "away", error: { error: error.message, hint: error.hint } } });
    }
    if (form.model.state === "loading" && isShown()) timer = window.setTimeout(look, LOADING_POLL);
  }

  const isShown = () => store.get("shown")?.includes("interventions") ?? true;

  async function start() {
    const graph = store.get("graph");
    const wrong = unreadable(form.rows);
    if (wrong) {
      set({ run: null, failure: wrong });
      editor.querySelector('.value-field[aria-invalid="true"]')?.focus();
      return;
    }
    const request = runRequest(graph, form.rows, form.settings, [...watched(store, graph)]);
    const mine = (latest += 1);
    set({ failure: null, run: { state: "queued", ahead: 0, request, graph } });
    try {
      let run = await runs.start(request);
      while (mine === latest && ["queued", "running"].includes(run.state)) {
        set({ run: { ...run, request, graph } });
        await new Promise((resolve) => window.setTimeout(resolve, POLL));
        run = await runs.read(run.id);
      }
      if (mine === latest) set({ run: { ...run, request, graph }, model: await runs.model() });
    } catch (error) {
      if (mine === latest) set({ run: null, failure: { error: error.message, hint: error.hint } });
    }
  }

  async function cancel() {
    if (form.run?.id) await runs.cancel(form.run.id).catch(() => {});
  }

  function opened() {
    latest += 1;
    set({ rows: [], run: null, failure: null });
    look();
  }

  const disposers = [
    store.subscribe(["graph"], opened),
    store.subscribe(["selected", "wholeGroup", "pinned", "labels", "featureLabels", "supernodes"], render),
    store.subscribe(["shown"], () => isShown() && form.model?.state !== "ready" && look()),
  ];
  look();
  return () => {
    window.clearTimeout(timer);
    disposers.forEach((dispose) => dispose());
  };
}

/** Pinned nodes, and the outputs that the graph explains. */
function watched(store, graph) {
  const logits = graph.nodes.filter((node) => node.kind === "logit").map((node) => node.id);
  return new Set([...store.get("pinned"), ...logits]);
}

function modelLine(model, graph) {
  if (model === null) return [h("span", { class: "muted" }, "Looking for a model …")];
  if (model.state === "none")
    return [
      h("p", {}, "No model is loaded. To run interventions, start the page with one:"),
      commandBlock(serveCommand(graph)),
    ];
  if (model.state === "failed" || model.state === "away")
    return [h("p", { class: "warn" }, model.error?.error ?? "The model can't be used."), hintLine(model.error)].filter(Boolean);
  if (model.state === "loading") return [h("span", { class: "muted" }, `Model: ${model.phase || "waiting"} …`)];
  const other = graph.metadata.scan && model.scan && graph.metadata.scan !== model.scan;
  return other
    ? [
        h("p", { class: "warn" }, `This graph was made with ${graph.metadata.scan}, but the server runs ${model.scan}. To test it:`),
        commandBlock(serveCommand(graph)),
      ]
    : [];
}

const hintLine = (error) => (error?.hint ? h("p", { class: "muted" }, error.hint) : null);

function runResults(store, graph, form) {
  const failure = form.failure ?? (form.run?.state === "failed" ? form.run.error : null);
  if (failure) return [h("p", { class: "warn" }, failure.error), hintLine(failure)].filter(Boolean);
  const { result, request } = form.run ?? {};
  if (!result || form.run.graph !== graph) return [];
  const changes = nodeChanges(graph, result.nodes, store.get("labels"), store.get("featureLabels"));
  const pinned = changes.filter(({ id }) => store.get("pinned").includes(id));
  return [
    h("h3", {}, "Next token"),
    tokenTable(result.next_token),
    h("h3", {}, "Pinned nodes"),
    pinned.length > 0
      ? h("div", { class: "changes" }, ...pinned.map((change) => changeRow(store, change)))
      : h("p", { class: "muted" }, "Pin nodes to see what the edits do to them."),
    ...(result.continuation_after === null ? [] : continuations(result)),
    h("h3", {}, "The same in a terminal"),
    commandBlock(commandLine(request)),
  ];
}

function tokenTable({ tokens, kl }) {
  const bar = (share, kind) =>
    h("span", { class: `share share-${kind}`, style: { width: `${(share * 100).toFixed(1)}%` } });
  return h(
    "div",
    {},
    h(
      "table",
      { class: "token-table" },
      h("thead", {}, h("tr", {}, h("th", {}, "token"), h("th", {}, "before"), h("th", {}, "after"), h("th", {}, ""))),
      h(
        "tbody",
        {},
        ...likelyTokens(tokens).map((token) =>
          h(
            "tr",
            {},
            h("td", { class: "mono", dir: "auto" }, showToken(token.text)),
            h("td", {}, percent(token.before)),
            h("td", {}, percent(token.after)),
            h("td", { class: "shares", "aria-hidden": "true" }, bar(token.before, "before"), bar(token.after, "after")),
          ),
        ),
      ),
    ),
    h("p", { class: "muted" }, `KL(before ‖ after) ${number(kl)} nats`),
  );
}

function changeRow(store, { node, before, after, change }) {
  const row = nodeRow(store, node);
  row.querySelector(".node-amount").replaceWith(
    h(
      "span",
      { class: `node-amount change ${change < 0 ? "falls" : change > 0 ? "rises" : ""}` },
      `${before} → ${after}`,
    ),
  );
  return row;
}

function continuations({ continuation_before: before, continuation_after: after }) {
  return [
    h("h3", {}, "Continuation"),
    h(
      "div",
      { class: "continuations" },
      h("div", {}, h("h4", { class: "muted" }, "before"), h("p", { class: "mono", dir: "auto" }, before)),
      h("div", {}, h("h4", { class: "muted" }, "after"), h("p", { class: "mono", dir: "auto" }, after)),
    ),
  ];
}
