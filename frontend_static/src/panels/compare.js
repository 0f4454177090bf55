/* Two graphs compared, many merged, or the choice of what to compare this one with. */

import { select } from "../actions.js";
import { SIDES, comparison, differentSlots, largestMoves, merging, mostFrequent, partners, setAside, sideCounts } from "../compare.js";
import { h, oneTabStop, replaceKeepingFocus } from "../dom.js";
import { nodeLabel, nodePlace, number, percent, showToken, signed } from "../format.js";
import { css } from "../scales.js";
import { palette } from "../theme.js";
import { commandBlock } from "./command-block.js";
import { nodeRow } from "./node-row.js";

const ROWS = 40;
const WATCHED = ["graph", "graphs", "visible", "least", "side", "selected", "pinned", "labels", "featureLabels", "theme", "shown"];
const ALIGNMENTS = [
  ["", "positions: as suits"],
  ["exact", "positions: exact"],
  ["slots", "positions: token by token"],
  ["end", "positions: from the end"],
  ["bag", "positions: left out"],
];
const MATCHED = { exact: "all have the same tokens", slots: "positions matched by slot", end: "positions counted from the end", bag: "positions left out" };

export function compare(element, store, { comparisons, open }) {
  const own = { slug: null, shown: null, other: "", align: "", busy: false, failure: null, all: false };
  const body = h("div", { class: "compare scroll" });
  element.append(body);

  const set = (patch) => {
    Object.assign(own, patch);
    render();
  };

  function render() {
    if (!(store.get("shown")?.includes("compare") ?? true)) return;
    const graph = store.get("graph");
    if (own.slug !== store.get("slug")) Object.assign(own, { slug: store.get("slug"), other: "", failure: null, all: false });
    const dragged = document.activeElement?.matches("#compare-least") && own.shown === graph;
    own.shown = graph;
    if (dragged) return renderBelow(graph);
    replaceKeepingFocus(body, ...(graph ? parts(graph) : []));
    oneTabStop(body);
  }

  /** While the slider moves it stays; what it changes is below. */
  function renderBelow(graph) {
    body.querySelector(".compare-below")?.replaceChildren(...belowSlider(store, graph, own, set));
    oneTabStop(body);
  }

  function parts(graph) {
    if (comparison(graph)) return comparedParts(store, graph, comparison(graph), own, set);
    if (merging(graph)) return [...mergedParts(store, merging(graph)), h("div", { class: "compare-below" }, ...belowSlider(store, graph, own, set))];
    return choiceParts(store, graph, own, { set, start, merge, possible: Boolean(comparisons) });
  }

  /** Runs what makes a new graph in the folder, then opens that. */
  async function make(work) {
    set({ busy: true, failure: null });
    try {
      const { slug } = await work();
      set({ busy: false });
      await open(slug);
    } catch (error) {
      set({ busy: false, failure: { error: error.message, hint: error.hint } });
    }
  }

  const start = () => make(() => comparisons.diff({ a: store.get("slug"), b: own.other, align: own.align || null }));
  const merge = () => make(() => comparisons.merge({ slug: freeName(store.get("graphs"), "merged") }));

  const dispose = store.subscribe(WATCHED, render);
  render();
  return dispose;
}

/** Shows a part of the graph; a selection outside it ends. */
function show(store, patch) {
  const graph = store.get("graph");
  const { least, side } = { least: store.get("least"), side: store.get("side"), ...patch };
  const gone = setAside(graph, least, side)?.[graph.index(store.get("selected"))] && !store.get("pinned").includes(store.get("selected"));
  store.set({ ...patch, ...(gone ? { selected: null } : {}) });
}

function freeName(graphs, base) {
  const taken = new Set(graphs.map(({ slug }) => slug));
  let [name, count] = [base, 2];
  while (taken.has(name)) name = `${base}-${count++}`;
  return name;
}

/** The colour of a side, as the attribution graph paints it. */
function swatch(side) {
  const colours = palette();
  const colour = { a: colours.onlyA, b: colours.onlyB }[side] ?? colours.shared;
  return h("span", { class: "compare-swatch", "aria-hidden": "true", style: { background: css(colour) } });
}

function choiceParts(store, graph, own, { set, start, merge, possible }) {
  if (!possible) {
    return [
      h("p", { class: "muted" }, "This page holds one graph. In a terminal, two graphs become one file that shows what both have and what differs:"),
      commandBlock("circuit-tracer diff A B -o both.json"),
    ];
  }
  const offered = partners(store.get("graphs"), store.get("slug"), graph.metadata.scan);
  if (offered.length === 0) return [h("p", { class: "muted" }, "The folder holds no other graph to compare this one with.")];
  const chosen = offered.some(({ slug }) => slug === own.other) ? own.other : offered[0].slug;
  own.other = chosen;
  const other = h("select", { class: "small-select", id: "compare-with", onchange: (event) => set({ other: event.target.value, failure: null }) },
    ...offered.map((one) => h("option", { value: one.slug, title: one.prompt ?? "" }, one.slug)));
  other.value = chosen;
  const align = h("select", { class: "small-select", "aria-label": "How positions are matched", onchange: (event) => set({ align: event.target.value, failure: null }) },
    ...ALIGNMENTS.map(([value, name]) => h("option", { value }, name)));
  align.value = own.align;
  return [
    h("h3", {}, "Compare this graph"),
    h("p", { class: "muted" }, "What both graphs have, what one alone has, and why the target’s value differs, source by source. The result is a graph of this folder."),
    h("div", { class: "compare-form" }, h("label", { for: "compare-with" }, "with"), other, align,
      h("button", { class: "small", type: "button", disabled: own.busy, onclick: start }, "Compare")),
    h("p", { class: "muted", dir: "auto" }, offered.find(({ slug }) => slug === chosen).prompt ?? ""),
    h("h3", {}, "Merge the folder"),
    h("p", { class: "muted" }, `How often each node and link is in the ${offered.length + 1} graphs of this folder, as one graph with a slider for the least share of prompts.`),
    h("div", { class: "compare-form" }, h("button", { class: "small", type: "button", disabled: own.busy, onclick: merge }, `Merge ${offered.length + 1} graphs`)),
    own.busy && h("p", { class: "muted", role: "status" }, "Reading the graphs …"),
    own.failure && h("p", { class: "warn", role: "alert" }, own.failure.error),
    own.failure?.hint && h("p", { class: "muted" }, own.failure.hint),
  ].filter(Boolean);
}

function comparedParts(store, graph, about, own, set) {
  const { scores = {}, counts = {} } = about;
  const cut = counts.pruned_only ?? 0;
  return [
    h("dl", { class: "compare-names" }, ...["a", "b"].flatMap((side) => [
      h("dt", {}, swatch(side), side.toUpperCase()),
      h("dd", { dir: "auto" }, h("strong", {}, about[side].name), " ", h("span", { class: "muted" }, about[side].prompt)),
    ])),
    sideChoice(store, graph),
    (counts.unknown ?? 0) > 0 && h("p", { class: "muted" }, `${nodes(counts.unknown)} stand in one file alone (paler): files for the viewer don’t tell whether the other graph has them below its thresholds.`),
    cut > 0 && h("p", { class: "muted" }, `${nodes(cut)} of one graph were only cut by pruning in the other (paler).`),
    about.match === "place" && h("p", { class: "muted" }, "The transcoder sets differ, so features are compared by layer and position, not one by one."),
    h("dl", { class: "compare-scores" }, ...[
      ["Influence shared", scores.shared_influence, "1 − half the sum of differences of the features’ shares of the influence"],
      ["Weighted Jaccard", scores.weighted_jaccard, "of the flows through links"],
      ["Cosine", scores.cosine, "of the flows through links"],
    ].flatMap(([name, value, title]) => [h("dt", { title }, name), h("dd", {}, number(value))])),
    ...alignment(about),
    ...changeTable(store, graph, about),
    ...moveList(store, graph, own, set),
  ].filter(Boolean);
}

const nodes = (count) => (count === 1 ? "1 node" : `${count.toLocaleString("en")} nodes`);

function sideChoice(store, graph) {
  const counts = sideCounts(graph);
  const names = { all: "All", a: "Only A", both: "Shared", b: "Only B" };
  return h("div", { class: "segments compare-sides", role: "group", "aria-label": "Nodes to show" },
    ...SIDES.map((side) => h("button", {
      class: "segment", type: "button", "data-side": side, "aria-pressed": String(store.get("side") === side), onclick: () => show(store, { side }),
    }, side !== "all" && swatch(side), `${names[side]} ${counts[side].toLocaleString("en")}`)));
}

function alignment(about) {
  const different = differentSlots(about);
  if (about.level === "exact") return [h("p", { class: "muted" }, "The prompts have the same tokens.")];
  if (about.level === "bag") return [h("p", { class: "muted" }, "Positions are left out: a feature counts wherever it is active.")];
  const cell = (text) => (text === null ? h("span", { class: "muted" }, "–") : showToken(text));
  return [
    h("details", { class: "compare-slots" },
      h("summary", {}, `Tokens that differ: ${different.length} of ${about.slots.length}`),
      h("table", { class: "compare-table" }, h("tbody", {}, ...different.map(([slot, a, b]) =>
        h("tr", {}, h("td", { class: "muted" }, String(slot)), h("td", { dir: "auto" }, cell(a)), h("td", { dir: "auto" }, cell(b))))))),
  ];
}

/** What each source adds to the target in either graph, and the two parts of its change. */
function changeTable(store, graph, about) {
  const { changes = [], others, target } = about;
  if (changes.length === 0) return [];
  const total = changes.reduce((sum, { a, b }) => sum + b - a, others?.change ?? 0);
  const shown = changes.slice(0, ROWS);
  const rest = total - shown.reduce((sum, { a, b }) => sum + b - a, 0);
  const count = changes.length - shown.length + (others?.n ?? 0);
  const name = targetName(graph, target);
  const head = [["Source", ""], ["A", "what it adds in A"], ["B", "what it adds in B"], ["by activation", "because it is more or less active"], ["by path", "because it reaches the target differently"]];
  return [
    h("h3", {}, `Why ${name} differs: B − A = ${signed(total, 3)}`),
    h("table", { class: "compare-table compare-changes" },
      h("thead", {}, h("tr", {}, ...head.map(([text, title]) => h("th", { title, scope: "col" }, text)))),
      h("tbody", {},
        ...shown.map((change) => changeRow(store, graph, change, about.change_noise)),
        count > 0 && h("tr", {}, h("td", { class: "muted", colspan: "3" }, `${count.toLocaleString("en")} more together`), h("td", { colspan: "2" }, signed(rest, 3))))),
  ];
}

function targetName(graph, { a, b }) {
  const find = (id) => graph.nodes.find((node) => node.kind === "logit" && node.id.split("_")[1] === String(id).split("_")[1]);
  const names = [...new Set([a, b].map((id) => find(id)).map((node, i) => (node ? `“${node.logitToken.trim()}”` : [a, b][i])))];
  return names.join(" against ");
}

function changeRow(store, graph, change, noise) {
  const node = change.id ? graph.node(change.id) : null;
  const within = Number.isFinite(noise) && Math.abs(change.b - change.a) <= noise;
  const label = node ? nodeLabel(node, store.get("labels"), store.get("featureLabels")[node.code]) : change.node;
  const place = node ? nodePlace(node) : "not shown: pruning cut it in both";
  return h("tr", { class: within ? "within-noise" : null, title: within ? "no more than noise" : null },
    h("td", { dir: "auto" },
      node
        ? h("button", { class: "link", type: "button", "data-node": node.id, title: place, "aria-pressed": String(store.get("selected") === node.id), onclick: () => select(store, node.id) }, label)
        : h("span", { class: "muted", title: place }, label),
      node && h("span", { class: "muted" }, ` ${place}`)),
    ...[change.a, change.b].map((value) => h("td", {}, number(value))),
    ...[change.by_activation, change.by_path].map((value) => h("td", { class: value < 0 ? "negative" : value > 0 ? "positive" : "muted" }, value === 0 ? "0" : signed(value, 3))));
}

function moveList(store, graph, own, set) {
  const moved = largestMoves(graph);
  if (moved.length === 0) return [];
  const shown = own.all ? moved : moved.slice(0, ROWS);
  return [
    h("h3", {}, "Features whose share of the influence differs most"),
    h("div", { class: "rows" },
      ...shown.map((node) => h("div", { class: node.diff.noise ? "compare-move within-noise" : "compare-move" },
        nodeRow(store, node),
        h("span", { class: "compare-shares" }, swatch("a"), percent(node.diff.shareA), " → ", swatch("b"), percent(node.diff.shareB)))),
      shown.length < moved.length && h("button", { class: "more", type: "button", onclick: () => set({ all: true }) }, `Show ${moved.length - shown.length} more`)),
  ];
}

function mergedParts(store, about) {
  const slider = h("input", {
    type: "range", min: "0", max: String(about.n), step: "1", class: "compare-range", id: "compare-least",
    oninput: () => show(store, { least: Number(slider.value) / about.n }),
    onkeydown: (event) => event.key.startsWith("Arrow") && event.stopPropagation(),
  });
  slider.value = String(Math.round(store.get("least") * about.n));
  return [
    h("p", {}, `${about.n.toLocaleString("en")} prompts merged; ${MATCHED[about.level] ?? "positions matched"}.`),
    h("label", { for: "compare-least" }, "Hide nodes that fewer prompts have"),
    slider,
  ];
}

function belowSlider(store, graph, own, set) {
  const about = merging(graph);
  const least = Math.round(store.get("least") * about.n);
  const found = mostFrequent(graph, store.get("visible"));
  const shown = own.all ? found.slice(0, 10 * ROWS) : found.slice(0, ROWS);
  const said = least === 0 ? "All nodes are shown." : `At least ${least} of ${about.n} prompts (${percent(least / about.n)}): ${nodes(found.length)} of ${graph.nodes.length.toLocaleString("en")}.`;
  return [
    h("p", { class: "muted", role: "status" }, said),
    h("div", { class: "rows" },
      ...shown.map((node) => h("div", { class: "compare-move" }, nodeRow(store, node), frequency(node.merged, about.n))),
      !own.all && shown.length < found.length && h("button", { class: "more", type: "button", onclick: () => set({ all: true }) }, `Show ${Math.min(found.length, 10 * ROWS) - shown.length} more`)),
  ];
}

function frequency({ frequency: share, share: mean, low, high }, n) {
  const bounds = low !== null && high !== null ? `, 95 % interval ${percent(low)} to ${percent(high)}` : "";
  const title = mean === null ? "" : `Mean share of the influence ${percent(mean)}${bounds}`;
  return h("span", { class: "compare-shares", title }, `${Math.round(share * n)} of ${n}`);
}
