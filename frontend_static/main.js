/* Puts the page together: the store, the server, the panels, the keys. */

import { arrange, raise } from "./src/arrangement.js";
import { addressOf, fromParams, paramsFromAddress, readPositions } from "./src/annotations.js";
import { createApi } from "./src/api.js";
import { createAutosave } from "./src/autosave.js";
import { h } from "./src/dom.js";
import { embeddedApi } from "./src/embedded.js";
import { createFeatureStore } from "./src/feature-store.js";
import { mountPanels } from "./src/frame.js";
import { frontOf } from "./src/grid.js";
import { cantor, maxThreshold, parseGraph, topLogit, visibleNodes } from "./src/graph.js";
import { useKeyboard } from "./src/keyboard.js";
import { header } from "./src/panels/header.js";
import { helpDialog } from "./src/panels/help.js";
import { PANELS } from "./src/panels/index.js";
import { createStore, initialState } from "./src/state.js";
import { makeBoxes } from "./src/supernodes.js";
import { applyTheme, preferredTheme } from "./src/theme.js";

const theme = preferredTheme();
applyTheme(theme);
const store = createStore({ ...initialState(), theme });
const api = embeddedApi() ?? createApi(document.baseURI);
const autosave = createAutosave(store, api.saveAnnotations);
const features = createFeatureStore(api.feature, { onRecord: rememberLabel, available: api.hasFeatures });
const services = {
  features,
  figures: new Map(),
  titles: new Map(PANELS.map((panel) => [panel.name, panel.title])),
};
const help = helpDialog();
const message = h("div", { class: "message", role: "alert", hidden: true });

const commands = {
  open: (slug) => open(slug),
  refreshList,
  reload: () => open(store.get("slug")),
  async keepMine() {
    const { etag } = await api.readGraph(store.get("slug"));
    await autosave.overwrite(etag);
  },
  async share() {
    try {
      await navigator.clipboard.writeText(`${document.baseURI.split("?")[0]}?${addressOf(view(), true)}`);
      return true;
    } catch {
      return false;
    }
  },
  help: () => help.showModal(),
  search() {
    raise(store, "nodes");
    const field = document.getElementById("node-search");
    field.focus();
    field.select();
  },
};

function view() {
  const keys = ["slug", "selected", "threshold", "pinned", "supernodes", "labels"];
  return Object.fromEntries(keys.map((key) => [key, store.get(key)]));
}

/** A feature's own label, where its file has one. */
function rememberLabel(layer, feature, record) {
  const text = record.label?.text;
  if (typeof text === "string" && text)
    store.set({ featureLabels: { ...store.get("featureLabels"), [cantor(layer, feature)]: text } });
}

async function refreshList() {
  try {
    const { graphs, errors } = await api.listGraphs();
    store.set({ graphs, problems: errors ?? [] });
  } catch (error) {
    report(error);
  }
}

async function open(slug, params = {}) {
  if (autosave.dirty() && slug !== store.get("slug")) await autosave.flush();
  try {
    const { json, etag } = await api.readGraph(slug);
    show(slug, parseGraph(json), etag, { ...json.qParams, ...params });
    message.hidden = true;
  } catch (error) {
    return report(error);
  }
  await readProposedLabels(slug);
}

/** Labels that the transcoder set's own files propose. The view works without them, so a failure isn't reported. */
async function readProposedLabels(slug) {
  const labels = await api.proposedLabels(slug).catch(() => ({}));
  const texts = Object.fromEntries(
    Object.entries(labels).map(([code, label]) => [code, String(label.text ?? "")]),
  );
  if (store.get("slug") === slug) store.set({ featureLabels: { ...store.get("featureLabels"), ...texts } });
}

function show(slug, graph, etag, params) {
  const { savedPositions, threshold, ...annotations } = fromParams(params);
  const limit = maxThreshold(graph);
  const boxes = makeBoxes(graph, annotations.pinned, annotations.supernodes);
  const start = limit === null ? null : Math.min(threshold ?? limit, limit);
  store.set({
    ...annotations,
    slug,
    graph,
    etag,
    threshold: start,
    hovered: null,
    grouping: null,
    loading: false,
    edits: 0,
    selected: graph.node(annotations.selected)?.id ?? topLogit(graph)?.id ?? null,
    featureLabels: {},
    positions: readPositions(
      savedPositions,
      boxes.map((box) => box.key),
    ),
    visible: visibleNodes(graph, start, annotations.pinned, annotations.hidden),
    saving: graph.duplicates
      ? { kind: "idle", message: `${graph.duplicates} nodes share an id and can't be told apart.` }
      : { kind: "idle", message: "" },
  });
  store.forget();
  arrange(store);
}

function report(error) {
  message.replaceChildren(
    h("strong", {}, error.message),
    h("span", { class: "muted" }, error.hint ?? ""),
    h("button", { class: "small", type: "button", onclick: start }, "Try again"),
  );
  message.hidden = false;
}

function updateVisible() {
  const graph = store.get("graph");
  if (graph)
    store.set({
      visible: visibleNodes(graph, store.get("threshold"), store.get("pinned"), store.get("hidden")),
    });
}

/** A selection shows its connections instead of the list of nodes, except while somebody goes through that. */
function showConnections() {
  const behind = store.get("layout").find((area) => area.names.includes("connections") && area.names.includes("nodes"));
  const listed = behind && frontOf(behind, store.get("raised")) === "nodes";
  if (store.get("selected") && listed && !document.activeElement?.closest(".panel-nodes")) raise(store, "connections");
}

function updateAddress() {
  const query = addressOf(view());
  try {
    window.history.replaceState(null, "", query ? `?${query}` : window.location.pathname);
  } catch {
    // A page opened from disk may have to keep its address.
  }
}

async function start() {
  const { slug, params } = paramsFromAddress(window.location.search);
  message.hidden = true;
  await refreshList();
  const slugs = store.get("graphs").map((graph) => graph.slug);
  if (slug || slugs.length > 0) return open(slug ?? slugs[0], slug ? params : {});
  if (message.hidden)
    report({
      message: "There are no graphs in this folder yet.",
      hint: "circuit-tracer attribute --slug NAME writes one; this page finds it without a restart.",
    });
}

header(document.querySelector("#header"), store, commands);
mountPanels(document.querySelector("#panels"), store, PANELS, services);
document.body.append(help, message);
useKeyboard(store, commands);
store.subscribe(["threshold", "pinned", "hidden"], updateVisible);
store.subscribe(["selected"], showConnections);
store.subscribe(["slug", "selected", "threshold"], updateAddress);
window.addEventListener("pagehide", () => autosave.flush({ keepalive: true }));
window.addEventListener("beforeunload", (event) => {
  if (autosave.dirty() && ["failed", "conflict"].includes(store.get("saving").kind)) event.preventDefault();
});
window.addEventListener("online", () => autosave.flush());
start();
