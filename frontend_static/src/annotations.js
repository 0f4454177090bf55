/* Annotations between the forms that files and URLs hold (`qParams`) and the store's. Pure. */

import { readAdded } from "./added-values.js";

const LINK_TYPES = ["input", "output", "either", "both"];

/**
 * The store's annotation values from a file's `qParams`. Arrays are expected; comma-joined and JSON strings, as the reference's
 * page saves them, are understood too, and what can't be read is left out.
 */
export function fromParams(params) {
  const given = params ?? {};
  const known = {
    pinned: idList(given.pinnedIds),
    hidden: idList(given.hiddenIds),
    supernodes: groups(given.supernodes),
    labels: Object.fromEntries(pairs(given.clerps)),
    selected: nodeId(given.clickedId),
    linkType: LINK_TYPES.includes(given.linkType) ? given.linkType : "both",
    threshold: threshold(given.pruningThreshold),
    edgeThreshold: threshold(given.edgeThreshold),
    boxFrame: size(given.sg_size),
    expanded: idList(given.sg_expanded),
    ...named(given),
    savedPositions: typeof given.sg_pos === "string" ? given.sg_pos : "",
    difference: typeof given.logitDiff === "string" && given.logitDiff ? given.logitDiff : null,
    notes: readNotes(given.notes),
    added: readAdded(given.added),
  };
  const {
    pinnedIds,
    hiddenIds,
    supernodes,
    clerps,
    clickedId,
    linkType,
    pruningThreshold,
    edgeThreshold,
    logitDiff,
    sg_pos,
    sg_size,
    sg_expanded,
    subgraphs,
    subgraph,
    notes,
    added,
    ...otherParams
  } = given;
  return { ...known, otherParams };
}

/** `qParams` from the store's values, as they are saved: arrays, and unknown keys as they were. */
export function toParams(state, maxThreshold) {
  const params = {
    ...state.otherParams,
    pinnedIds: state.pinned,
    supernodes: state.supernodes,
    linkType: state.linkType,
    clickedId: state.selected ?? "",
    sg_pos: writePositions(state.positions),
  };
  if (state.boxFrame) params.sg_size = state.boxFrame.join(" ");
  if (state.expanded?.length > 0) params.sg_expanded = state.expanded;
  if (state.subgraphs?.length > 0) {
    const active = subgraphEntry(state.subgraphName, state);
    params.subgraphs = state.subgraphs.map((entry) => (entry.name === active.name ? active : entry));
    params.subgraph = state.subgraphName;
  }
  if (state.hidden.length > 0) params.hiddenIds = state.hidden;
  if (Object.keys(state.labels).length > 0) params.clerps = Object.entries(state.labels);
  if (hasNotes(state.notes)) params.notes = state.notes;
  if (state.threshold !== null && state.threshold < maxThreshold) params.pruningThreshold = state.threshold;
  if (state.added?.nodes.length > 0) params.added = state.added;
  if (state.difference) params.logitDiff = state.difference;
  if ((state.edgeThreshold ?? 1) < 1) params.edgeThreshold = state.edgeThreshold;
  return params;
}

/** A subgraph with a name, in the form in which a file has the one that is shown. */
export function subgraphEntry(name, state) {
  const entry = { name, pinnedIds: state.pinned, supernodes: state.supernodes, sg_pos: writePositions(state.positions) };
  if (state.boxFrame) entry.sg_size = state.boxFrame.join(" ");
  if (state.expanded?.length > 0) entry.sg_expanded = state.expanded;
  return Object.freeze(entry);
}

/** The subgraphs of a file that have names, and which of them is shown. */
function named({ subgraphs: given, subgraph }) {
  const usable = (Array.isArray(given) ? given : []).filter((entry) => typeof entry?.name === "string" && entry.name !== "");
  const subgraphs = usable.filter((entry, i) => usable.findIndex(({ name }) => name === entry.name) === i);
  const shown = subgraphs.find(({ name }) => name === subgraph) ?? subgraphs[0];
  return { subgraphs: Object.freeze(subgraphs.map((entry) => Object.freeze({ ...entry }))), subgraphName: shown?.name ?? "" };
}

/** The size of the drawing that places are parts of, as "width height"; null where a file doesn't tell it. */
function size(text) {
  const numbers = typeof text === "string" ? text.split(/\s+/).filter(Boolean).map(Number) : [];
  return numbers.length === 2 && numbers.every((value) => value > 0 && value < 1e6) ? Object.freeze(numbers) : null;
}

/** `qParams.notes`: `{"graph": text, "nodes": {node_id: text}}`. */
function readNotes(value) {
  const given = value !== null && typeof value === "object" && !Array.isArray(value) ? value : {};
  const nodes = given.nodes !== null && typeof given.nodes === "object" ? given.nodes : {};
  const texts = Object.entries(nodes).filter(([, text]) => typeof text === "string" && text !== "");
  return Object.freeze({
    graph: typeof given.graph === "string" ? given.graph : "",
    nodes: Object.freeze(Object.fromEntries(texts)),
  });
}

export function hasNotes(notes) {
  return notes.graph !== "" || Object.keys(notes.nodes).length > 0;
}

function nodeId(value) {
  const usable = typeof value === "string" && value !== "" && value !== "null" && value !== "undefined";
  return usable && !value.includes("supernode") ? value : null;
}

function idList(value) {
  const list = typeof value === "string" ? value.split(",") : Array.isArray(value) ? value : [];
  return [...new Set(list.map(nodeId).filter((id) => id !== null))];
}

function groups(value) {
  return asArray(value)
    .filter(
      (group) => Array.isArray(group) && group.length > 1 && group.every((item) => typeof item === "string"),
    )
    .map((group) => Object.freeze([...group]));
}

function pairs(value) {
  return asArray(value)
    .filter(
      (pair) => Array.isArray(pair) && pair.length === 2 && typeof pair[1] === "string" && pair[1] !== "",
    )
    .map(([code, label]) => [String(code), label]);
}

function asArray(value) {
  if (typeof value !== "string") return Array.isArray(value) ? value : [];
  try {
    const parsed = JSON.parse(value);
    return Array.isArray(parsed) ? parsed : [];
  } catch {
    return [];
  }
}

function threshold(value) {
  const number = typeof value === "string" && value !== "" ? Number(value) : value;
  return typeof number === "number" && Number.isFinite(number) ? number : null;
}

/** Positions by box key, each [x, y] from 0 to 1, as `sg_pos`: integers to 1000 in the order of the sorted keys. */
export function writePositions(positions) {
  const keys = Object.keys(positions).sort();
  return keys.flatMap((key) => positions[key].map((value) => Math.round(value * 1000))).join(" ");
}

/** The inverse of `writePositions` for boxes with these keys; empty if the numbers don't fit them. */
export function readPositions(text, keys) {
  const numbers = text.split(/\s+/).filter(Boolean).map(Number);
  if (numbers.length !== keys.length * 2 || !numbers.every(Number.isFinite)) return {};
  const sorted = [...keys].sort();
  return Object.fromEntries(
    sorted.map((key, i) => [key, [numbers[2 * i] / 1000, numbers[2 * i + 1] / 1000]]),
  );
}
