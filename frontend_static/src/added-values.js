/* What `qParams.added` holds: nodes that were added to a graph in the page, with their links. Pure. */

/** Nothing added. */
export const NONE = Object.freeze({ nodes: Object.freeze([]), links: Object.freeze([]) });

const isNode = (one) => typeof one?.node_id === "string" && typeof one.feature_type === "string";
const isLink = (one) => typeof one?.source === "string" && typeof one.target === "string" && Number.isFinite(one.weight);

/** `qParams.added` as `{nodes, links}`, both as in a graph file; what can't be read is left out. */
export function readAdded(value) {
  const list = (given, isOne) => (Array.isArray(given) ? given.filter(isOne) : []);
  const nodes = list(value?.nodes, isNode);
  if (nodes.length === 0) return NONE;
  return Object.freeze({ nodes: Object.freeze(nodes), links: Object.freeze(list(value.links, isLink)) });
}
