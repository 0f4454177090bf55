/* Which attention heads carry the links of the selected node, and why a head looks where it looks. */

import { h } from "../dom.js";
import { nodeLabel, number, signedPercent, tokenLabel } from "../format.js";
import { fileGraph } from "../graph.js";
import { answeredHeads, chipsOf, headMap, headName, headsByLink, headsRequest, linksOf, lookRequest, MOST_LINKS, sameHead, storedHeads, throughHead } from "../heads.js";
import { serveCommand } from "../interventions.js";
import { commandBlock } from "./command-block.js";
import { selectedFlow } from "./flow-detail.js";
import { headGrid } from "./head-grid.js";
import { lookSection } from "./head-look.js";
import { nodeRow } from "./node-row.js";

const POLL = 150;
const PAUSE = 200;
const CHIPS = 4;
const ROWS = 40;

export function heads(element, store, { attention, runs }) {
  const own = { byEnds: new Map(), known: null, stored: false, model: null, asking: 0, failure: null, look: null, answer: null, looking: false, lookFailure: null, direction: "input", all: false };
  const body = h("div", { class: "heads scroll" });
  element.append(body);
  let timer = 0;

  const isShown = () => store.get("shown")?.includes("heads") ?? true;
  const set = (patch) => {
    Object.assign(own, patch);
    render();
  };

  /** The selected node and its links, or those of the selected flow. */
  function subject() {
    const graph = store.get("pruned");
    const flow = graph && store.get("flow") ? selectedFlow(store) : null;
    if (flow) return { graph, node: null, title: flow.names.join(" → "), direction: "input", links: flow.links.slice(0, MOST_LINKS) };
    const node = graph?.node(store.get("selected"));
    if (!node || !fileGraph(graph).node(node.id)) return null;
    const open = (direction) => linksOf(graph, node.index, direction, store.get("visible"));
    const direction = open(own.direction).length > 0 ? own.direction : own.direction === "input" ? "output" : "input";
    return { graph, node, direction, links: open(direction) };
  }

  function render() {
    if (!isShown()) return;
    relink();
    const about = subject();
    const focused = markOf(body);
    body.replaceChildren(...(about ? parts(about) : [empty()]));
    if (focused) body.querySelector(focused)?.focus({ preventScroll: true });
  }

  /** Numbers of links change with every cut of the graph. */
  function relink() {
    const graph = store.get("pruned");
    if (graph) own.known = headsByLink(graph, own.byEnds, own.stored);
  }

  function parts(about) {
    const { graph, links } = about;
    const map = headMap(graph, links, own.known);
    return [
      head(store, about, (direction) => set({ direction, all: false })),
      ...status(about, map),
      ...(map.heads.length > 0 ? [headGrid(map, store.get("head"), choose)] : []),
      ...lookSection(store, graph, own, look),
      ...(map.known > 0 ? linkList(store, about, own, { choose, look, light, more: () => set({ all: true }) }) : []),
    ];
  }

  function status({ graph, links }, map) {
    if (own.failure) return failureLines(own.failure);
    if (own.asking) return [h("p", { class: "muted", role: "status" }, "Asking the model …")];
    if (map.known > 0 && map.heads.length === 0)
      return [h("p", { class: "muted" }, "These links stay at their position, so no head has to move anything.")];
    if (map.known > 0 || links.length === 0) return [];
    if (own.model?.state === "loading") return [h("p", { class: "muted", role: "status" }, `Model: ${own.model.phase || "waiting"} …`)];
    if (own.model && own.model.state !== "ready") return withoutModel(graph, own.stored);
    return [];
  }

  /** Shows the links through a head, here and in the attribution graph. */
  function choose(one) {
    const next = one && !sameHead(one, store.get("head")) ? { layer: one.layer, head: one.head } : null;
    store.set({ head: next });
    light();
    render();
  }

  function light() {
    relink();
    const about = subject();
    const chosen = store.get("head");
    store.set({ path: about && chosen ? throughHead(about.links, own.known, chosen) : null });
  }

  async function ask() {
    window.clearTimeout(timer);
    const about = isShown() && subject();
    if (!about) return;
    relink();
    const missing = about.links.filter((link) => !own.known.has(link));
    if (missing.length === 0 || own.stored || own.model?.state !== "ready") return;
    const graph = about.graph;
    const mine = (own.asking += 1);
    set({ failure: null });
    try {
      const result = await answerOf(attention.heads(headsRequest(graph, missing)), runs, () => mine === own.asking);
      if (mine !== own.asking) return;
      own.asking = 0;
      set({ byEnds: new Map([...own.byEnds, ...answeredHeads(result.edges)]) });
      light();
    } catch (error) {
      if (mine !== own.asking) return;
      own.asking = 0;
      set({ failure: { error: error.message, hint: error.hint } });
    }
  }

  /** Asks why a head looks from a position; null closes the section. */
  async function look(next) {
    const graph = store.get("pruned");
    const goesOn = next && own.look && sameHead(next, own.look) && next.query === own.look.query;
    set({ look: next, answer: goesOn ? own.answer : null, lookFailure: null, looking: Boolean(next) });
    if (next && !goesOn) body.querySelector(".look-title")?.scrollIntoView({ block: "start", behavior: "smooth" });
    store.set({ lit: [] });
    if (!next || own.model?.state !== "ready") return set({ looking: false });
    try {
      const answer = await answerOf(attention.look(lookRequest(graph, next)), runs, () => own.look === next);
      if (own.look === next) set({ answer, looking: false });
    } catch (error) {
      if (own.look === next) set({ looking: false, lookFailure: { error: error.message, hint: error.hint } });
    }
  }

  async function findModel() {
    try {
      own.model = attention ? await runs.model() : { state: "none" };
    } catch {
      own.model = { state: "none" };
    }
    if (own.model.state === "loading" && isShown()) timer = window.setTimeout(findModel, 1000);
    render();
    ask();
  }

  /** What the file says is for one prompt on one set; a graph that grows, or is validated, stays the same. */
  function subjectKey() {
    const graph = store.get("graph");
    return graph ? JSON.stringify([store.get("slug"), graph.metadata.prompt, graph.metadata.scan]) : null;
  }

  async function opened() {
    Object.assign(own, { byEnds: new Map(), stored: false, asking: 0, failure: null, look: null, answer: null, looking: false });
    store.set({ head: null, lit: [] });
    if (!isShown() || !store.get("graph")) return;
    const key = (own.for = subjectKey());
    const links = await (attention?.stored?.(store.get("slug")) ?? Promise.resolve([])).catch(() => []);
    if (key !== subjectKey()) return;
    Object.assign(own, { byEnds: storedHeads(links), stored: links.length > 0 });
    await findModel();
  }

  function selected() {
    if (!isShown()) return;
    window.clearTimeout(timer);
    own.all = false;
    own.failure = null;
    render();
    light();
    timer = window.setTimeout(ask, PAUSE);
  }

  const disposers = [
    store.subscribe(["graph"], () => (subjectKey() === own.for ? render() : opened())),
    store.subscribe(["pruned"], () => isShown() && subjectKey() === own.for && selected()),
    store.subscribe(["selected", "flow"], selected),
    store.subscribe(["visible", "labels", "featureLabels", "theme"], render),
    store.subscribe(["shown"], () => {
      if (!isShown()) store.set({ head: null, lit: [], ...(store.get("head") ? { path: null } : {}) });
      else if (own.for !== subjectKey()) opened();
      else selected();
    }),
  ];
  opened();
  return () => {
    window.clearTimeout(timer);
    disposers.forEach((dispose) => dispose());
  };
}

/** A selector of what has the focus in an element, so that it gets it again after the element is filled anew; "" without one. */
function markOf(element) {
  const { activeElement: focused } = document;
  if (!element.contains(focused)) return "";
  const marks = ["head", "position", "node"].filter((name) => focused.dataset[name] !== undefined);
  const places = marks.map((name) => `[data-${name}="${CSS.escape(focused.dataset[name])}"]`);
  return places.length > 0 ? `.${focused.classList[0]}${places.join("")}` : "";
}

/** The result of a question in the server's queue; a question that nobody waits for any more is taken back. Throws what the run failed with. */
export async function answerOf(started, runs, goesOn) {
  let run = await started;
  while (goesOn() && ["queued", "running"].includes(run.state)) {
    await new Promise((resolve) => window.setTimeout(resolve, POLL));
    run = await runs.read(run.id);
  }
  if (["queued", "running"].includes(run.state)) await runs.cancel(run.id).catch(() => {});
  if (run.state === "failed") throw Object.assign(new Error(run.error.error), { hint: run.error.hint });
  return run.result;
}

function empty() {
  return h("p", { class: "muted heads-empty" }, "Select a node, or a link of the subgraph, to see which attention heads carry it, and why they look where they look.");
}

function failureLines({ error, hint }) {
  return [h("p", { class: "warn" }, error), hint ? h("p", { class: "muted" }, hint) : null].filter(Boolean);
}

function withoutModel(graph, stored) {
  if (stored) return [];
  return [
    h("p", {}, "This file doesn't contain the heads of its links, and the page was started without a model to compute them. Start it with one:"),
    commandBlock(serveCommand(graph)),
    h("p", { class: "muted" }, "Or store the heads in the graph and export it again:"),
    commandBlock("circuit-tracer heads GRAPH.safetensors --all -o GRAPH.safetensors"),
  ];
}

function head(store, { node, title, direction }, turn) {
  if (!node) return h("div", { class: "heads-head" }, h("strong", { dir: "auto" }, title));
  const segment = (name, label) =>
    h("button", { class: "segment", type: "button", "aria-pressed": String(direction === name), onclick: () => turn(name) }, label);
  return h(
    "div",
    { class: "heads-head" },
    h("strong", { dir: "auto" }, nodeLabel(node, store.get("labels"), store.get("featureLabels")[node.code])),
    h("div", { class: "segments", role: "group", "aria-label": "Links" }, segment("input", "Inputs"), segment("output", "Outputs")),
  );
}

function linkList(store, { graph, node, links, direction }, own, { choose, look, light, more }) {
  const chosen = store.get("head");
  const shown = throughHead(links.filter((link) => own.known.has(link)), own.known, chosen);
  const largest = Math.max(0, ...links.map((link) => Math.abs(graph.links.weight[link])));
  const widest = Math.max(0, ...shown.map((link) => Math.abs(graph.links.share[link])));
  const title = chosen ? `Links through ${headName(chosen)}` : direction === "input" ? "Inputs" : "Outputs";
  const rest = shown.length - ROWS;
  return [
    h(
      "div",
      { class: "heads-title" },
      h("h3", {}, `${title} `, h("span", { class: "muted" }, String(shown.length))),
      chosen && h("button", { class: "small quiet", type: "button", onclick: () => choose(null) }, "All heads"),
    ),
    h(
      "div",
      { class: "head-links" },
      ...(own.all ? shown : shown.slice(0, ROWS)).map((link) => linkRow(store, graph, link, direction, own, { largest, widest, look, light, both: !node })),
      !own.all && rest > 0 && h("button", { class: "more", type: "button", onclick: more }, `Show ${rest} more`),
    ),
  ];
}

function linkRow(store, graph, link, direction, own, { largest, widest, look, light, both }) {
  const { source, target, share, weight } = graph.links;
  const other = graph.nodes[direction === "input" ? source[link] : target[link]];
  const reader = graph.nodes[target[link]];
  const chips = chipsOf(own.known.get(link), weight[link], largest);
  const chosen = store.get("head");
  const chip = (one) =>
    h(
      "button",
      {
        class: `head-chip ${one.value < 0 ? "negative" : "positive"}`,
        type: "button",
        "aria-pressed": String(sameHead(one, own.look) && one.position === own.look?.key && reader.position === own.look?.query),
        "data-head": headName(one),
        title: `${headName(one)} brings ${number(one.value)} of ${number(weight[link])} from ${one.position} “${tokenLabel(graph.tokens[one.position] ?? "")}”. Click: why it looks there`,
        onclick: () => look({ layer: one.layer, head: one.head, query: reader.position, key: one.position, against: null }),
      },
      h("b", {}, headName(one)),
      one.share === null ? "" : ` ${signedPercent(one.share).replace("+", "")}`,
      h("span", { class: "chip-from", dir: "auto" }, tokenLabel(graph.tokens[one.position] ?? "", 9)),
    );
  return h(
    "div",
    { class: "head-link", onpointerenter: () => store.set({ path: [link] }), onpointerleave: light },
    nodeRow(store, other, { share: share[link], weight: weight[link], widest }),
    h(
      "div",
      { class: "head-chips" },
      both && h("span", { class: "muted", dir: "auto" }, `→ ${nodeLabel(reader, store.get("labels"), store.get("featureLabels")[reader.code])}`),
      ...(chips.length > 0 ? chips.slice(0, CHIPS).map(chip) : [h("span", { class: "muted" }, "stays at its position")]),
    ),
  );
}
