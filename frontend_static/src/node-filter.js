/* Which nodes a search and its filters leave, and in what order. Pure. */

import { nodeLabel } from "./format.js";
import { matchesQuery } from "./graph.js";

/** The ranges that can be filtered by: the filter's name, what people read, the value of a node. */
export const RANGES = Object.freeze([
  { name: "layer", title: "Layer", value: (node) => node.layer },
  { name: "position", title: "Position", value: (node) => node.position },
  { name: "activation", title: "Activation", value: (node) => node.activation },
  { name: "influence", title: "Influence (%)", value: (node) => (node.ownInfluence === null ? null : node.ownInfluence * 100) },
]);

const last = (value, fallback) => (value === null ? fallback : value);
const ORDERS = {
  influence: (a, b) =>
    last(a.influence, -1) - last(b.influence, -1) || last(b.probability, 0) - last(a.probability, 0),
  activation: (a, b) => last(b.activation, -Infinity) - last(a.activation, -Infinity),
  layer: (a, b) => b.layer - a.layer || a.position - b.position,
  position: (a, b) => a.position - b.position || a.layer - b.layer,
};

/** The orders that a list can have. */
export const SORTS = Object.freeze(Object.keys(ORDERS));

/**
 * The nodes that are left. `state` holds the store's `graph`, `visible`, `pinned`, `labels`, `featureLabels`, `notes`, `query` and `filters`:
 * `{kind, sort, layer: [from, to], …}`, null being open. A node without a value is outside every range of it.
 */
export function findNodes(state) {
  const { graph, visible, filters } = state;
  if (!graph) return [];
  const pinned = new Set(state.pinned);
  const ranges = RANGES.map(({ name, value }) => ({ value, bounds: filters[name] })).filter(
    ({ bounds }) => bounds && (bounds[0] !== null || bounds[1] !== null),
  );
  const kind = filters.kind ?? "all";
  const found = graph.nodes.filter(
    (node) =>
      visible[node.index] &&
      isOfKind(node, kind, pinned, state.notes) &&
      ranges.every(({ value, bounds }) => isWithin(value(node), bounds)) &&
      (!state.query || matchesQuery(node, textOf(node, state), state.query)),
  );
  return found.sort(ORDERS[filters.sort] ?? ORDERS.influence);
}

function isOfKind(node, kind, pinned, notes) {
  if (kind === "all") return true;
  if (kind === "pinned") return pinned.has(node.id);
  if (kind === "noted") return node.id in notes.nodes;
  return node.kind === kind;
}

function isWithin(value, [from, to]) {
  return value !== null && (from === null || value >= from) && (to === null || value <= to);
}

function textOf(node, { labels, featureLabels, notes }) {
  const label = nodeLabel(node, labels, featureLabels[node.code]);
  return `${label} ${node.clerp} ${notes.nodes[node.id] ?? ""}`;
}

/** How many of the filters narrow the list. */
export function activeFilters(filters) {
  return RANGES.filter(({ name }) => filters[name]?.some((bound) => bound !== null)).length;
}
