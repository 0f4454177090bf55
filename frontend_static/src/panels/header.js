/* The top bar: which graph, its prompt and scores, how it is pruned, undo, saving, theme. */

import { h, icon } from "../dom.js";
import { openMenu } from "../menu.js";
import { number, showToken } from "../format.js";
import { maxThreshold } from "../graph.js";
import { listEntries } from "../graph-list.js";
import { applyTheme } from "../theme.js";
import { canFollow } from "../windows.js";
import { shown } from "./pruning.js";
import { validationBadge } from "./validation-report.js";

/** `commands` come from main: `open(slug)`, `refreshList()`, `reload()`, `keepMine()`, `share()`, `help()`, `info()`, `prune()`, … */
export function header(element, store, commands) {
  const parts = [
    picker(store, commands),
    libraryButton(commands),
    newGraphButton(store, commands),
    promptText(store),
    scores(store, commands),
    pruneButton(store, commands),
    historyButtons(store),
    saveState(store, commands),
    tools(store, commands),
  ];
  element.append(
    h("h1", { class: "wordmark" }, "circuit", h("b", {}, "tracer")),
    ...parts.map((part) => part.element),
  );
  return () => parts.forEach((part) => part.dispose());
}

function picker(store, commands) {
  const list = h("select", {
    class: "picker",
    "aria-label": "Graph",
    async onchange() {
      await commands.open(list.value);
      render();
    },
    onfocus: commands.refreshList,
  });
  const render = () => {
    const entries = listEntries({ graphs: store.get("graphs"), problems: store.get("problems"), tracing: store.get("tracing") });
    list.replaceChildren(...entries.map(({ text, value, disabled }) => h("option", { value, disabled }, text)));
    list.value = store.get("slug") ?? "";
  };
  return { element: list, dispose: store.subscribe(["graphs", "slug", "problems", "tracing"], render) };
}

function libraryButton(commands) {
  const title = "All graphs: search, add, rename, delete (o)";
  const element = h("button", { class: "small", type: "button", title, "aria-label": "All graphs", onclick: commands.library }, icon("folder"));
  return { element, dispose: () => {} };
}

/** Traces a new prompt; there where the server has a model. */
function newGraphButton(store, commands) {
  const element = h(
    "button",
    { class: "small", type: "button", title: "Trace a new prompt (n)", hidden: true, onclick: commands.newGraph },
    "New graph",
  );
  const render = () => {
    element.hidden = !store.get("canTrace");
  };
  return { element, dispose: store.subscribe(["canTrace"], render) };
}

function promptText(store) {
  const element = h("div", { class: "prompt", dir: "auto" });
  const render = () => {
    const metadata = store.get("graph")?.metadata;
    const prompt = metadata?.prompt ?? "";
    element.textContent = showToken(prompt);
    element.title = prompt;
    document.title = prompt ? `${prompt.slice(0, 80)} · circuit tracer` : "circuit tracer";
  };
  return { element, dispose: store.subscribe(["graph"], render) };
}

function scores(store, commands) {
  const element = h("div", { class: "scores" });
  const render = () => {
    const graph = store.get("graph");
    const values = graph ? scoreFacts(graph) : [];
    element.replaceChildren(
      ...values.map(([name, value, title]) =>
        h("span", { class: "score", title }, h("span", { class: "muted" }, name), " ", value),
      ),
      ...[graph && validationBadge(graph.metadata, commands.info)].filter(Boolean),
    );
  };
  return { element, dispose: store.subscribe(["graph"], render) };
}

function scoreFacts({ metadata }) {
  const found = { ...metadata.scores, ...metadata.info, ...metadata };
  const replacement = found.replacement_score ?? found.replacement;
  const completeness = found.completeness_score ?? found.completeness;
  return [
    Number.isFinite(replacement) && [
      "replacement",
      number(replacement),
      "Share of paths from tokens to outputs that go through features, not errors",
    ],
    Number.isFinite(completeness) && [
      "completeness",
      number(completeness),
      "Share of the nodes' input that comes from features and tokens, not errors",
    ],
  ].filter(Boolean);
}

/** Tells both thresholds and opens the strip that sets them. */
function pruneButton(store, commands) {
  const values = h("span", {});
  const element = h(
    "button",
    {
      class: "small prune-toggle",
      type: "button",
      "aria-controls": "prune",
      "aria-expanded": "false",
      title: "Prune nodes and links (r)",
      onclick: commands.prune,
    },
    "Prune",
    values,
  );
  const render = () => {
    const graph = store.get("graph");
    element.disabled = graph === null;
    element.setAttribute("aria-expanded", String(store.get("pruningOpen")));
    if (graph === null) return;
    const texts = [shown(store.get("threshold"), maxThreshold(graph)), shown(store.get("edgeThreshold"), 1)];
    values.textContent = texts.every((text) => text === "all") ? "" : ` ${texts.join(" · ")}`;
    element.title = `Prune nodes and links (r). Now: nodes ${texts[0]}, links ${texts[1]}. ${limitOf(graph)}`;
  };
  render();
  return { element, dispose: store.subscribe(["graph", "threshold", "edgeThreshold", "pruningOpen"], render) };
}

/** Where the sliders end, and how to get a file that holds more. */
function limitOf(graph) {
  const limit = maxThreshold(graph);
  if (limit >= 1) return "The file has the full graph.";
  const higher = Math.min(1, Number((limit + 0.15).toFixed(2)));
  return `The file was pruned at ${number(limit)}; circuit-tracer export GRAPH --node-threshold ${higher} writes a larger one.`;
}

function historyButtons(store) {
  const undo = h(
    "button",
    { class: "icon", type: "button", title: "Undo (u)", "aria-label": "Undo", onclick: store.undo },
    icon("undo"),
  );
  const redo = h(
    "button",
    { class: "icon", type: "button", title: "Redo (Shift-u)", "aria-label": "Redo", onclick: store.redo },
    icon("redo"),
  );
  const render = () => {
    undo.disabled = !store.get("canUndo");
    redo.disabled = !store.get("canRedo");
  };
  render();
  return {
    element: h("div", { class: "buttons" }, undo, redo),
    dispose: store.subscribe(["canUndo", "canRedo"], render),
  };
}

const ONLY_HERE = "The file doesn't change; only this browser keeps the edits. “Save a copy with annotations” in the menu writes a file with them.";

function saveState(store, commands) {
  const names = {
    idle: "",
    pending: "Editing …",
    saving: "Saving …",
    saved: commands.saveCopy ? "Kept in this browser" : "Saved",
    failed: "Not saved",
    conflict: "Changed elsewhere",
  };
  const element = h("div", { class: "save-state", role: "status" });
  const render = () => {
    const { kind, message } = store.get("saving");
    element.dataset.kind = kind;
    element.title = message || (kind === "saved" && commands.saveCopy ? ONLY_HERE : "");
    const choices =
      kind !== "conflict"
        ? []
        : [
            h(
              "button",
              {
                class: "small",
                type: "button",
                title: "Drop my changes and read the file again",
                onclick: commands.reload,
              },
              "Load theirs",
            ),
            h(
              "button",
              {
                class: "small",
                type: "button",
                title: "Save my version over the other one",
                onclick: commands.keepMine,
              },
              "Keep mine",
            ),
          ];
    element.replaceChildren(h("span", {}, names[kind]), ...choices);
  };
  return { element, dispose: store.subscribe(["saving"], render) };
}

function tools(store, commands) {
  const theme = h(
    "button",
    {
      class: "icon",
      type: "button",
      title: "Light or dark (t)",
      "aria-label": "Light or dark theme",
      onclick: () => toggleTheme(store),
    },
    icon("theme"),
  );
  const share = h(
    "button",
    {
      class: "icon",
      type: "button",
      title: "Copy a link to this view",
      "aria-label": "Copy a link to this view",
      onclick: async () => {
        share.replaceChildren(icon((await commands.share()) ? "check" : "cross"));
        window.setTimeout(() => share.replaceChildren(icon("link")), 1500);
      },
    },
    icon("link"),
  );
  const help = h(
    "button",
    { class: "icon", type: "button", title: "Help (?)", "aria-label": "Help", onclick: commands.help },
    icon("help"),
  );
  const menu = h(
    "button",
    {
      class: "icon",
      type: "button",
      "aria-haspopup": "menu",
      "aria-expanded": "false",
      "aria-label": "Graph menu",
      title: "Import, export, about this graph",
      onclick: () =>
        openMenu(menu, [
          { label: "About this graph", run: commands.info },
          { label: "Tour of the page", run: commands.tour },
          ...(canFollow()
            ? [{ label: "Follow other windows", checked: store.get("following"), run: () => store.set({ following: !store.get("following") }) }]
            : []),
          null,
          { label: "Export annotations", run: commands.exportAnnotations },
          { label: "Import annotations …", run: commands.importAnnotations },
          null,
          commands.saveCopy
            ? { label: "Save a copy with annotations", run: commands.saveCopy }
            : { label: "Download as one page (HTML)", run: commands.downloadPage },
          ...(commands.exportLabels
            ? [null, { label: "Export shared labels", run: commands.exportLabels }, { label: "Import shared labels …", run: commands.importLabels }]
            : []),
        ]),
    },
    icon("menu"),
  );
  const begin = h("button", { class: "small tour-button", type: "button", hidden: !commands.tourUnseen(), onclick: () => { begin.hidden = true; commands.tour(); } }, "Tour");
  return { element: h("div", { class: "buttons" }, begin, share, theme, help, menu), dispose: () => {} };
}

export function toggleTheme(store) {
  const next = store.get("theme") === "dark" ? "light" : "dark";
  applyTheme(next, true);
  store.set({ theme: next });
}
