/* Puts the page together: the store, the server, the panels, the keys. */

import { setDifference } from "./src/actions.js";
import { fileOf, followAdded, withAdded } from "./src/added.js";
import { addressOf, addressToShare, readAddress } from "./src/address.js";
import { fromParams, readPositions } from "./src/annotations.js";
import { arrange, isDefault, raise } from "./src/arrangement.js";
import { createApi } from "./src/api.js";
import { createAttributes } from "./src/attributes.js";
import { createAutosave } from "./src/autosave.js";
import { h } from "./src/dom.js";
import { embeddedApi } from "./src/embedded.js";
import { createFollower } from "./src/follow.js";
import { createFeatureStore } from "./src/feature-store.js";
import { mountPanels } from "./src/frame.js";
import { chooseFile, download } from "./src/download.js";
import { watchFile } from "./src/file-watch.js";
import { cantor, maxThreshold, topLogit, withMetadata } from "./src/graph.js";
import { watchList } from "./src/graph-list.js";
import { encodeLayout, frontOf } from "./src/grid.js";
import { loadGraph, readAhead } from "./src/load.js";
import { createLeaving } from "./src/leaving.js";
import { useKeyboard } from "./src/keyboard.js";
import { noticeLine } from "./src/notice.js";
import { useAttributeKey } from "./src/panels/attribute-table.js";
import { figureDialog } from "./src/panels/figure-dialog.js";
import { labelDialog } from "./src/panels/label-dialog.js";
import { graphInfo } from "./src/panels/graph-info.js";
import { header } from "./src/panels/header.js";
import { libraryDialog } from "./src/panels/library.js";
import { newGraphDialog } from "./src/panels/new-graph.js";
import { helpDialog, showHelp } from "./src/panels/help.js";
import { pageCommands } from "./src/page-copies.js";
import { PANELS } from "./src/panels/index.js";
import { pruningStrip, togglePruning } from "./src/panels/pruning.js";
import { tour } from "./src/panels/tour.js";
import { unpruned } from "./src/pruned-graph.js";
import { followPruning } from "./src/pruning-follow.js";
import { followRoot } from "./src/rooted.js";
import { withDifference } from "./src/difference.js";
import { createStore, initialState } from "./src/state.js";
import { labelCommands } from "./src/share-labels.js";
import { completePositions, makeBoxes } from "./src/supernodes.js";
import { clamp } from "./src/scales.js";
import { applyTheme, preferredTheme } from "./src/theme.js";
import { canFollow, followWindows } from "./src/windows.js";
import { exportAnnotations, fileName, importAnnotations } from "./src/transfer.js";

const ADDRESSED = ["slug", "selected", "threshold", "edgeThreshold", "difference", "root", "linkType", "sign", "scatter", "tab"];

const theme = preferredTheme();
applyTheme(theme);
const store = createStore({ ...initialState(), theme });
const api = embeddedApi() ?? createApi(document.baseURI);
let ahead = askAhead(readAddress(window.location.search).slug);
const autosave = createAutosave(store, api.saveAnnotations);
const mayLeave = createLeaving(store, autosave);
const features = createFeatureStore((layer, feature) => api.feature(store.get("slug"), layer, feature), {
  onRecord: rememberLabel,
  scope: () => JSON.stringify([store.get("graph")?.metadata.scan, store.get("graph")?.metadata.transcoder_list]),
});
const attributes = createAttributes(store, (slug) => api.readNodes(slug));
const services = {
  attributes,
  features,
  runs: api.runs,
  attention: api.attention,
  hidden: api.hidden,
  expand: api.expand,
  comparisons: api.comparisons,
  async open(slug) {
    await refreshList();
    await commands.open(slug);
  },
  figures: new Map(),
  askFigure: (save) => figureForm.ask(save),
  titles: new Map(PANELS.map((panel) => [panel.name, panel.title])),
};
const help = helpDialog();
const info = graphInfo(store);
const labels = labelDialog();
const figureForm = figureDialog();
const guide = tour();
const embedded = new URLSearchParams(window.location.search).has("embed");
let brought = false;
let looked = null;
let opening = 0;
const MOST_OFFERED = 12;
const message = h("div", { class: "message", role: "alert", hidden: true });

const commands = {
  async open(slug) {
    if (await mayLeave(slug)) await (slug === store.get("tracing")?.slug ? follower.open(slug) : open(slug));
  },
  refreshList,
  reload: () => open(store.get("slug")),
  async keepMine() {
    const { etag } = await api.readGraph(store.get("slug"));
    await autosave.overwrite(etag);
  },
  async share() {
    const page = document.baseURI.split("?")[0];
    const { query, complete } = addressToShare(view(), page);
    try {
      await navigator.clipboard.writeText(`${page}?${query}`);
    } catch {
      store.set({ notice: "The browser doesn't let this page copy. The address bar has a link to this view." });
      return false;
    }
    const rest = complete ? "" : " There are too many pins and labels for a link; it opens with those of the file.";
    store.set({ notice: `Link copied.${rest}` });
    return true;
  },
  exportAnnotations() {
    const keys = ["slug", "graph", "pinned", "supernodes", "labels", "positions", "boxFrame", "expanded", "subgraphs", "subgraphName", "notes", "added", "hidden", "linkType"];
    const state = Object.fromEntries([...keys, "selected", "threshold", "edgeThreshold", "difference", "otherParams"].map((key) => [key, store.get(key)]));
    download(fileName(store.get("slug"), ".annotations.json"), exportAnnotations(state), "application/json");
  },
  ...pageCommands(store, api, { flush: () => autosave.flush() }),
  importAnnotations: () => chooseFile(".json,application/json", takeAnnotations),
  ...(api.sharedLabels ? labelCommands(store, api, { ask: labels.ask, after: readProposedLabels }) : {}),
  info: info.open,
  library: () => library.open(),
  tour: () => guide.begin(),
  tourUnseen: () => guide.unseen() && !embedded,
  newGraph: () => store.get("canTrace") && newGraph.open(),
  help: () => showHelp(),
  prune: () => togglePruning(store),
  attributes: attributes.ask,
  search() {
    raise(store, "nodes");
    const field = document.getElementById("node-search");
    field.focus();
    field.select();
  },
};

function takeAnnotations(text, name) {
  try {
    const { edit, missing, other } = importAnnotations(text, store.get("graph"));
    store.edit(edit);
    const notes = [
      `Imported ${edit.pinned.length} pins, ${edit.supernodes.length} supernodes and ${Object.keys(edit.labels).length} labels from ${name}.`,
      missing > 0 && `${missing} ${missing === 1 ? "node isn't" : "nodes aren't"} in this graph.`,
      other && "They were made for another prompt.",
      "Undo restores what was here.",
    ];
    store.set({ notice: notes.filter(Boolean).join(" ") });
  } catch (error) {
    store.set({ notice: error.message });
  }
}

function view() {
  const keys = [...ADDRESSED, "pinned", "hidden", "supernodes", "labels", "expanded", "boxFrame"];
  const state = Object.fromEntries(keys.map((key) => [key, store.get(key)]));
  const [graph, positions] = [store.get("graph"), store.get("positions")];
  if (graph) Object.assign(state, completePositions(graph, { ...state, positions }));
  const wide = store.get("shape") === "wide";
  return { ...state, layoutText: wide && !isDefault(store) ? encodeLayout(store.get("layout")) : null };
}

/** A feature's own label, where its file has one. */
function rememberLabel(layer, feature, record) {
  const text = record.label?.text;
  if (store.get("labelOrigins")[cantor(layer, feature)]) return;
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
  if (store.get("slug") !== null && slug !== store.get("slug")) leave();
  if (autosave.dirty() && slug !== store.get("slug")) await autosave.flush();
  try {
    opening += 1;
    const [call, shown] = [opening, { graph: null }];
    const take = ({ graph, params: saved, etag }) => {
      if (call !== opening) return;
      if (shown.graph && fileOf(store.get("graph")) === shown.graph) renew(graph, store.get("etag"));
      else if (!shown.graph) show(slug, graph, etag, { ...saved, ...params });
      if (!shown.graph && graph.leftOut) store.set({ notice: leftOutLine(graph.leftOut) });
      shown.graph = graph;
      message.hidden = true;
    };
    const begun = ahead?.slug === slug ? ahead.part : null;
    ahead = null;
    take(await loadGraph(api, slug, take, begun));
  } catch (error) {
    return report(error);
  }
  await readProposedLabels(slug);
}

function leftOutLine(count) {
  return count === 1
    ? "1 link of this file has no finite weight and is left out."
    : `${count.toLocaleString("en")} links of this file have no finite weight and are left out.`;
}

/** Asks for the graph of the address before the page is put together. */
function askAhead(slug) {
  return slug ? { slug, part: readAhead(api, slug) } : null;
}

/** What an address said was about the graph that is left now. */
function leave() {
  brought = false;
  store.set({ addressLayout: null, root: null });
}

/** Labels that people gave in other graphs of the set, or its files propose. The view works without them, so a failure isn't reported. */
async function readProposedLabels(slug) {
  const labels = await api.proposedLabels(slug).catch(() => ({}));
  const texts = Object.fromEntries(
    Object.entries(labels).map(([code, label]) => [code, String(label.text ?? "")]),
  );
  if (store.get("slug") === slug) store.set({ featureLabels: { ...store.get("featureLabels"), ...texts }, labelOrigins: labels });
}

function show(slug, file, etag, params) {
  const { savedPositions, threshold, edgeThreshold, difference, ...annotations } = fromParams(params);
  const graph = withDifference(withAdded(file, annotations.added), difference);
  const limit = maxThreshold(graph);
  const boxes = makeBoxes(graph, annotations.pinned, annotations.supernodes, annotations.expanded);
  store.set({
    ...annotations,
    slug,
    graph,
    difference: graph.base ? difference : null,
    etag,
    threshold: clamp(threshold ?? limit, 0, limit),
    edgeThreshold: clamp(edgeThreshold ?? 1, 0, 1),
    hovered: null,
    grouping: null,
    least: 0,
    side: "all",
    loading: false,
    edits: 0,
    selected: graph.node(annotations.selected)?.id ?? topLogit(graph)?.id ?? null,
    featureLabels: {},
    labelOrigins: {},
    positions: readPositions(
      savedPositions,
      boxes.map((box) => box.key),
    ),
    ...unpruned(graph, annotations.pinned, annotations.hidden),
    saving: graph.duplicates
      ? { kind: "idle", message: `${graph.duplicates} nodes share an id and can't be told apart.` }
      : { kind: "idle", message: "" },
  });
  store.forget();
  arrange(store);
}

/** Another version of the graph that is shown, with the selection, the threshold and the edits as they are. */
function renew(file, etag, more = {}) {
  const graph = withDifference(file, store.get("difference"));
  const limit = maxThreshold(graph);
  const whole = store.get("threshold") >= maxThreshold(store.get("graph"));
  const pinned = more.pinned ?? store.get("pinned");
  const selected = store.get("selected");
  store.set({
    graph,
    etag,
    threshold: whole ? limit : Math.min(store.get("threshold"), limit),
    hovered: null,
    selected: graph.node(selected) || !etag ? selected : (topLogit(graph)?.id ?? null),
    ...unpruned(graph, pinned, store.get("hidden")),
    ...more,
  });
}

/** What another program has put into the file, such as a validation. It isn't a conflict, even where a save took it for one. */
function takeMetadata({ metadata, etag }) {
  store.set({ graph: withMetadata(store.get("graph"), metadata), etag });
  if (store.get("saving").kind === "conflict") autosave.overwrite(etag);
}

/** What is seen in another window. */
function takeView({ difference, ...patch }) {
  if (difference !== undefined && difference !== store.get("difference")) setDifference(store, difference);
  const { selected } = patch;
  if (selected === undefined || selected === null || store.get("graph").index(selected) >= 0) store.set(patch);
}

const follower = createFollower(store, api, autosave, {
  show,
  renew,
  open,
  report,
  refreshList,
  readProposedLabels,
  mayLeave,
  home: (slug) => (slug ? open(slug) : window.location.assign(window.location.pathname)),
  hideMessage: () => (message.hidden = true),
});

const library = libraryDialog(store, api, {
  open: (slug) => commands.open(slug),
  refresh: refreshList,
  left: () => {
    const next = store.get("graphs").find(({ slug }) => slug !== store.get("slug"));
    return next ? open(next.slug) : undefined;
  },
});

const newGraph = newGraphDialog(store, api, {
  onStart: (run, asked) => follower.followRun(run, asked, (error) => newGraph.fail(error)),
});

function report(error) {
  const missing = error.status === 404;
  const others = missing ? store.get("graphs").slice(0, MOST_OFFERED) : [];
  const open = (slug) => h("button", { class: "small", type: "button", onclick: () => commands.open(slug) }, slug);
  store.set({ failed: store.get("graph") === null });
  message.replaceChildren(...[
    h("strong", {}, missing ? "This graph isn't in the folder." : error.message),
    h("span", { class: "muted" }, missing ? "It may have been renamed or deleted. These are here:" : (error.hint ?? "")),
    others.length > 0 && h("div", { class: "offered" }, ...others.map(({ slug }) => open(slug))),
    missing && h("button", { class: "small", type: "button", onclick: () => library.open() }, "All graphs"),
    h("button", { class: "small", type: "button", onclick: start }, "Try again"),
  ].filter(Boolean));
  message.hidden = false;
}

/** A selection shows its connections instead of the list of nodes, except while somebody goes through that. */
function showConnections() {
  if (store.get("graph") !== looked) {
    looked = store.get("graph");
    return;
  }
  const behind = store.get("layout").find((area) => area.names.includes("connections") && area.names.includes("nodes"));
  const listed = behind && frontOf(behind, store.get("raised")) === "nodes";
  if (store.get("selected") && listed && !document.activeElement?.closest(".panel-nodes")) raise(store, "connections");
}

/** Annotations that the address brought stay in it until an edit puts them into the file. */
function updateAddress() {
  const { layoutText, ...rest } = view();
  const state = { ...rest, layoutText: store.get("addressLayout") ? layoutText : null };
  const told = addressOf(state, brought && store.get("edits") === 0);
  const query = embedded ? `embed&${told}` : told;
  try {
    window.history.replaceState(null, "", query ? `?${query}` : window.location.pathname);
  } catch {
    // A page opened from disk may have to keep its address.
  }
}

/** Whether the server has a model for new prompts. */
async function seeIfTraceable() {
  const about = await api.traces?.describe().catch(() => null);
  store.set({ canTrace: about?.possible === true });
}

async function start() {
  const { slug, params, view: seen, layout, annotated } = readAddress(window.location.search);
  brought = annotated;
  store.set({ addressLayout: layout, ...seen });
  message.hidden = true;
  const [live] = await Promise.all([api.liveTrace().catch(() => ({ state: "none" })), refreshList()]);
  if (live.state !== "none" && (live.state === "running" || !live.run)) follower.strip.update(live);
  if (live.state === "running") follower.follow(live);
  if (live.state === "running" && (slug ?? live.slug) === live.slug) {
    ahead = null;
    return;
  }
  const slugs = store.get("graphs").map((graph) => graph.slug);
  if (slug || slugs.length > 0) return open(slug ?? slugs[0], slug ? params : {});
  await traceable;
  if (message.hidden)
    report({
      message: "There are no graphs in this folder yet.",
      hint: `${store.get("canTrace") ? "New graph in the top bar traces one; or " : ""}circuit-tracer attribute --slug NAME writes one; this page opens it as soon as it exists.`,
    });
}

header(document.querySelector("#header"), store, commands);
followAdded(store);
followRoot(store);
followPruning(store);
mountPanels(document.querySelector("#panels"), store, PANELS, services);
document.querySelector("#header").after(follower.strip.element, pruningStrip(store).element);
document.body.append(help, info.dialog, newGraph.dialog, labels.dialog, figureForm.dialog, library.dialog, guide.element, message, noticeLine(store));
useKeyboard(store, commands);
if (embedded) document.documentElement.dataset.embed = "";
if (api.library) takeDroppedFiles();
if (canFollow()) followWindows(store, takeView);
useAttributeKey(store, attributes.ask);
store.subscribe(["selected"], showConnections);
store.subscribe([...ADDRESSED, "edits", "layout"], updateAddress);
window.addEventListener("pagehide", () => autosave.flush({ keepalive: true }));
window.addEventListener("beforeunload", (event) => {
  if (autosave.dirty() && ["failed", "conflict"].includes(store.get("saving").kind)) event.preventDefault();
});
window.addEventListener("online", () => autosave.flush());
if (api.readView) {
  watchList(api, store, { onFirst: () => store.get("graph") === null && store.get("tracing") === null && open(store.get("graphs")[0].slug) });
  const watch = watchFile(api, store, { onMetadata: takeMetadata });
  window.addEventListener("focus", watch.look);
}
/** A graph's file that is dropped anywhere on the page is added to the folder. */
function takeDroppedFiles() {
  const carries = (event) => [...(event.dataTransfer?.types ?? [])].includes("Files");
  document.addEventListener("dragover", (event) => carries(event) && event.preventDefault());
  document.addEventListener("drop", async (event) => {
    if (!carries(event)) return;
    event.preventDefault();
    const [file] = event.dataTransfer.files;
    if (!file) return;
    if (!library.dialog.open) library.open();
    await library.take(await file.text(), file.name);
  });
}

const traceable = seeIfTraceable();
start();
