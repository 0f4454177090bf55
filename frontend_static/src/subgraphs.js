/* Several subgraphs of one graph, by name. The one that is shown is the store's own; the others are kept as a file keeps them. Pure. */

import { fromParams, readPositions, subgraphEntry } from "./annotations.js";
import { completePositions, makeBoxes } from "./supernodes.js";

const FIRST = "Subgraph 1";
const KEYS = ["pinned", "supernodes", "positions", "boxFrame", "expanded"];

/** The names, the shown one among them. */
export function names({ subgraphs, subgraphName }) {
  return subgraphs.length > 0 ? subgraphs.map(({ name }) => name) : [subgraphName || FIRST];
}

/** The edit that shows another subgraph; what is shown now is kept under its name. */
export function shownEdit(graph, state, name) {
  const subgraphs = kept(graph, state);
  const entry = subgraphs.find((other) => other.name === name);
  return { ...contentOf(graph, entry), subgraphs, subgraphName: name };
}

/** The edit that adds one, empty or with what is shown now, and shows it. */
export function addedEdit(graph, state, copy) {
  const before = kept(graph, state);
  const name = freeName(before, copy ? `${current(state)} copy` : "Subgraph");
  const entry = copy ? { ...entryOf(graph, state), name } : subgraphEntry(name, { pinned: [], supernodes: [], positions: {} });
  return { ...contentOf(graph, entry), subgraphs: Object.freeze([...before, Object.freeze(entry)]), subgraphName: name };
}

/** The edit that gives the shown one another name; one that is taken or empty changes nothing. */
export function renamedEdit(graph, state, text) {
  const name = text.trim();
  const before = kept(graph, state);
  if (!name || before.some((entry) => entry.name === name)) return null;
  const subgraphs = before.map((entry) => (entry.name === current(state) ? Object.freeze({ ...entry, name }) : entry));
  return { subgraphs: Object.freeze(subgraphs), subgraphName: name };
}

/** The edit that takes the shown one away and shows its neighbour; the last one is only emptied. */
export function removedEdit(graph, state) {
  const before = kept(graph, state);
  const at = before.findIndex(({ name }) => name === current(state));
  const subgraphs = before.filter((_, i) => i !== at);
  if (subgraphs.length === 0) return { ...contentOf(graph, {}), subgraphs: [], subgraphName: "" };
  const next = subgraphs[Math.min(at, subgraphs.length - 1)];
  return { ...contentOf(graph, next), subgraphs: Object.freeze(subgraphs), subgraphName: next.name };
}

const current = ({ subgraphName }) => subgraphName || FIRST;

function kept(graph, state) {
  const entry = entryOf(graph, state);
  if (state.subgraphs.length === 0) return Object.freeze([entry]);
  return Object.freeze(state.subgraphs.map((other) => (other.name === entry.name ? entry : other)));
}

function entryOf(graph, state) {
  const values = Object.fromEntries(KEYS.map((key) => [key, state[key]]));
  return subgraphEntry(current(state), { ...values, ...completePositions(graph, values) });
}

function contentOf(graph, entry) {
  const { pinned, supernodes, expanded, boxFrame, savedPositions } = fromParams(entry);
  const keys = makeBoxes(graph, pinned, supernodes, expanded).map((box) => box.key);
  return { pinned, supernodes, expanded, boxFrame, positions: readPositions(savedPositions, keys) };
}

function freeName(entries, stem) {
  const taken = new Set(entries.map(({ name }) => name));
  if (!taken.has(stem) && stem !== "Subgraph") return stem;
  for (let number = 2; ; number += 1) if (!taken.has(`${stem} ${number}`)) return `${stem} ${number}`;
}
