/* Heads of links and scores of heads: what a file or a server tells, sorted for people. Pure. */

import { fileGraph } from "./graph.js";
import { layerLabel, nodeLabel, tokenLabel } from "./format.js";

/** Links of a selection that are asked about at most, the strongest. */
export const MOST_LINKS = 200;
const SMALLEST = 1e-6;

/** `L14H3`. */
export const headName = ({ layer, head }) => `L${layer}H${head}`;

/** Whether two heads are the same; null is none. */
export const sameHead = (a, b) => a?.layer === b?.layer && a?.head === b?.head;

/** What `heads --all` left in the file (`[source, target, weight, heads, rest]` each) by the ends of the links: `{heads: [{layer, head, position, value}], rest}`. */
export function storedHeads(links) {
  return new Map(
    links
      .filter(([, , , heads]) => Array.isArray(heads) && heads.every(isShare))
      .map(([source, target, , heads, rest]) => [
        endsOf(source, target),
        { heads: heads.map(([layer, head, position, value]) => ({ layer, head, position, value })), rest: Number(rest) || 0 },
      ]),
  );
}

const isShare = (one) => Array.isArray(one) && one.length >= 4 && one.slice(0, 4).every(Number.isFinite);

/** The same from a server's answer. */
export function answeredHeads(edges) {
  return new Map(edges.map(({ source, target, heads, rest }) => [endsOf(source, target), { heads, rest }]));
}

const endsOf = (source, target) => `${source} ${target}`;

/**
 * What is known of a graph's links by their number, as `{has, get}`. Numbers change with what is pruned, ends don't. Where all of a file is known, a link that
 * isn't named has no heads.
 */
export function headsByLink(graph, byEnds, complete = false) {
  const { source, target, weight } = graph.links;
  const of = (link) => byEnds.get(endsOf(graph.nodes[source[link]].id, graph.nodes[target[link]].id));
  return {
    has: (link) => complete || of(link) !== undefined,
    get: (link) => of(link) ?? (complete ? { heads: [], rest: weight[link] } : undefined),
  };
}

/** The links into or out of a node whose other end is shown, strongest first. Links into the difference of two outputs are left out. */
export function linksOf(graph, index, direction, visible) {
  const file = fileGraph(graph);
  const links = direction === "input" ? graph.inputs(index) : graph.outputs(index);
  const end = (link) => (direction === "input" ? graph.links.source[link] : graph.links.target[link]);
  return [...links]
    .filter((link) => visible[end(link)] && file.node(graph.nodes[graph.links.target[link]].id))
    .slice(0, MOST_LINKS);
}

/** A link's heads with their shares of it; a share is null where the link is next to nothing. */
export function chipsOf(entry, weight, largest) {
  return entry.heads.map((one) => ({ ...one, share: Math.abs(weight) < SMALLEST * largest ? null : one.value / weight }));
}

/**
 * What some links go through: `{heads, layers, most, known}` with the heads `{layer, head, value, size, share}` by size. `value` is the sum of what
 * a head brings, `size` of its absolute values, `share` the size as a part of all these links.
 */
export function headMap(graph, links, known) {
  const cells = new Map();
  const told = links.filter((link) => known.has(link));
  const whole = told.reduce((sum, link) => sum + Math.abs(graph.links.weight[link]), 0);
  for (const link of told) {
    for (const { layer, head, value } of known.get(link).heads) {
      const name = headName({ layer, head });
      const cell = cells.get(name) ?? { layer, head, value: 0, size: 0 };
      cells.set(name, { ...cell, value: cell.value + value, size: cell.size + Math.abs(value) });
    }
  }
  const heads = [...cells.values()]
    .map((cell) => ({ ...cell, share: whole ? cell.size / whole : 0 }))
    .sort((a, b) => b.size - a.size || a.layer - b.layer || a.head - b.head);
  return {
    heads,
    layers: 1 + Math.max(-1, ...heads.map(({ layer }) => layer)),
    width: 1 + Math.max(-1, ...heads.map(({ head }) => head)),
    most: heads[0]?.share ?? 0,
    known: told.length,
  };
}

/** Those of some links that go through a head; all without one. */
export function throughHead(links, known, head) {
  return head ? links.filter((link) => known.get(link)?.heads.some((one) => sameHead(one, head))) : links;
}

/** The body of `POST api/attention/heads` for some links. */
export function headsRequest(graph, links) {
  const { source, target } = graph.links;
  return { ...aboutPrompt(graph), edges: links.map((link) => [graph.nodes[source[link]].id, graph.nodes[target[link]].id]), n: 4 };
}

/** The body of `POST api/attention/qk` for a look `{layer, head, query, key, against}`. */
export function lookRequest(graph, { layer, head, query, key = null, against = null }) {
  const body = { ...aboutPrompt(graph), layer, head, query, n: 12 };
  if (key !== null) body.key = key;
  if (key !== null && against !== null) body.against = against;
  return body;
}

/** What a question about a graph's prompt names it by. */
export function aboutPrompt(graph) {
  const { prompt = "", prompt_tokens: tokens = null, scan = null } = graph.metadata;
  return { prompt, prompt_tokens: tokens, scan };
}

/** A look after a click on a key, or after a click with Shift, which compares: the same key again takes it back. */
export function lookAt(look, key, compare = false) {
  if (key > look.query) return look;
  if (!compare || look.key === null) return { ...look, key: look.key === key && !compare ? null : key, against: null };
  if (key === look.key) return look;
  return { ...look, against: look.against === key ? null : key };
}

/** What an id of an answer is called, though the file may lack the node: `{label, place, node}`. */
export function sourceName(graph, id, labels = {}, featureLabels = {}) {
  const node = graph.node(id);
  if (node) return { node, label: nodeLabel(node, labels, featureLabels[node.code]), place: `${layerLabel(node)} · ${tokenLabel(node.token, 12)}` };
  const [layer, number, position] = id.split("_");
  const token = tokenLabel(graph.tokens[Number(position)] ?? "", 12);
  if (layer === "E") return { node: null, label: token, place: "Emb" };
  return { node: null, label: number === "-1" ? `Error · ${token}` : `Feature ${number}`, place: `L${layer} · ${token}` };
}
