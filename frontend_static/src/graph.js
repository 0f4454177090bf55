/* From a graph file's JSON to an immutable, indexed model. Pure: no DOM, no fetch. */

import { ownShares } from "./influence.js";
import { indexLinks } from "./links.js";

const EMBEDDING_LAYER = -1;

/**
 * One graph, ready for lookups by node index.
 *
 * Links are parallel typed arrays; `inputs(i)` and `outputs(i)` give the link numbers at node i, strongest first.
 * `share[k]` is the link's part of all absolute input into its target, between -1 and 1. `attributes` are the nodes as the file has them,
 * where it was read as JSON. A node's `asTarget` is what it counts for as something to explain: an output's probability, or above zero
 * for a feature that the file was made to explain. `leftOut` is how many links of the file have no finite weight, which no graph shows.
 */
export function parseGraph(json) {
  const raw = Array.isArray(json.nodes) ? json.nodes : [];
  return assemble(json, raw, (indexById) => indexLinks(...parseLinks(json.links ?? [], indexById), raw.length), raw);
}

/** The same from what `decodeCompact` gives: raw nodes, and links that are indexed already. */
export function graphFromCompact({ header, raw, links }) {
  return assemble(header, raw, () => links);
}

function assemble(json, raw, linksOf, attributes = null) {
  const metadata = json.metadata ?? {};
  const tokens = (metadata.prompt_tokens ?? []).map(String);
  const topLayer = raw.reduce(
    (top, node) => (isLogit(node) ? top : Math.max(top, layerOf(node))),
    EMBEDDING_LAYER,
  );
  const own = ownShares(raw.map((node) => finiteOrNull(node.influence)));
  const nodes = Object.freeze(
    raw.map((node, index) => parseNode(node, index, topLayer + 1, metadata, tokens, own[index])),
  );
  const indexById = new Map();
  let duplicates = 0;
  for (const node of nodes) {
    if (indexById.has(node.id)) duplicates += 1;
    else indexById.set(node.id, node.index);
  }
  const graph = {
    metadata,
    tokens,
    nodes,
    attributes,
    duplicates,
    leftOut: Number(metadata.edges_left_out) || (json.links ?? []).filter((link) => !Number.isFinite(link.weight)).length,
    logitLayer: topLayer + 1,
    index: (id) => indexById.get(id) ?? -1,
    node: (id) => nodes[indexById.get(id) ?? -1] ?? null,
  };
  return graphWithLinks(graph, linksOf(indexById));
}

/** The same nodes with other links, as `indexLinks` gives them. */
export function graphWithLinks(graph, links) {
  return Object.freeze({
    ...graph,
    links: Object.freeze(links),
    inputs: (index) => links.byTarget.subarray(links.targetStart[index], links.targetStart[index + 1]),
    outputs: (index) => links.bySource.subarray(links.sourceStart[index], links.sourceStart[index + 1]),
  });
}

/** A graph with more nodes at its end, raw ones as in a file, and more links `{source, target, weight}` by ids. */
export function graphWithNodes(graph, raw, links) {
  const own = graph.nodes.length;
  const fresh = raw.map((one, i) => parseNode(one, own + i, graph.logitLayer, graph.metadata, graph.tokens, null));
  const places = new Map(fresh.map(({ id, index }) => [id, index]));
  const index = (id) => places.get(id) ?? graph.index(id);
  const nodes = Object.freeze([...graph.nodes, ...fresh]);
  const [source, target, weight] = parseLinks(links, { get: (id) => (index(id) < 0 ? undefined : index(id)) });
  const joined = (Type, before, after) => Type.from([...before, ...after]);
  const all = [
    joined(Int32Array, graph.links.source, source),
    joined(Int32Array, graph.links.target, target),
    joined(Float64Array, graph.links.weight, weight),
  ];
  const attributes = graph.attributes && [...graph.attributes, ...raw];
  const extended = { ...graph, nodes, attributes, index, node: (id) => nodes[index(id)] ?? null };
  return graphWithLinks(extended, indexLinks(...all, nodes.length));
}

function parseNode(raw, index, logitLayer, metadata, tokens, own) {
  const kind = kindOf(raw);
  const layer = kind === "logit" ? logitLayer : layerOf(raw);
  const position = Number(raw.ctx_idx) || 0;
  const clerp = typeof raw.clerp === "string" ? raw.clerp : "";
  return Object.freeze({
    index,
    id: String(raw.node_id),
    kind,
    layer,
    position,
    token: (kind === "token" && (raw.merged || raw.diff) && clerp) || (tokens[position] ?? ""),
    code: kind === "feature" ? Number(raw.feature) : null,
    feature: kind === "feature" ? featureOf(raw, layer, metadata) : null,
    clerp,
    proposed: proposedText(raw),
    provenance: String(raw.proposed_label?.provenance ?? raw.provenance ?? ""),
    effects: proposedEffects(raw.proposed_label),
    drivenBy: triples(raw.proposed_label?.driven_by),
    logitToken: kind === "logit" ? outputToken(clerp) : null,
    probability: kind === "logit" ? Number(raw.token_prob) || 0 : null,
    asTarget: kind === "logit" || kind === "feature" ? Number(raw.token_prob) || 0 : 0,
    influence: finiteOrNull(raw.influence),
    ownInfluence: own?.share ?? null,
    influenceAtMost: own?.atMost ?? false,
    activation: finiteOrNull(raw.activation),
    merged: mergedFacts(raw.merged),
    diff: diffFacts(raw.diff),
  });
}

/** In how many of the merged graphs a node is, and its part of the influence with a 95 % interval; null in a graph of one prompt. */
function mergedFacts(raw) {
  const frequency = finiteOrNull(raw?.frequency);
  if (frequency === null) return null;
  return Object.freeze({ frequency, share: finiteOrNull(raw.mean_share), low: finiteOrNull(raw.low), high: finiteOrNull(raw.high) });
}

/** Which of two compared graphs has a node, for certain or as far as their files tell, and its share of the influence in either. */
function diffFacts(raw) {
  if (!["a", "b", "both"].includes(raw?.side)) return null;
  return Object.freeze({
    side: raw.side,
    certain: ["shared", "only_a", "only_b"].includes(raw.class),
    shareA: finiteOrNull(raw.share_a) ?? 0,
    shareB: finiteOrNull(raw.share_b) ?? 0,
    noise: raw.noise === true,
  });
}

/** A label proposed by the file's writer, as text or as `{text, provenance}`. */
function proposedText(raw) {
  const text = raw.proposed_label?.text ?? raw.proposed_label;
  return typeof text === "string" ? text : "";
}

/** The tokens that a feature raises and lowers, named as in a feature's own file. */
function proposedEffects(proposal) {
  const tokens = (pairs) => (Array.isArray(pairs) ? pairs.filter(Array.isArray).map(([token]) => String(token)) : []);
  return { top_logits: tokens(proposal?.promotes), bottom_logits: tokens(proposal?.suppresses) };
}

function triples(found) {
  const rows = Array.isArray(found) ? found.filter(Array.isArray) : [];
  return rows.map(([token, position, share]) => [String(token), Number(position) || 0, Number(share) || 0]);
}

function kindOf(raw) {
  const type = String(raw.feature_type ?? "");
  if (type.includes("error")) return "error";
  if (type === "embedding") return "token";
  return type === "logit" ? "logit" : "feature";
}

function isLogit(raw) {
  return raw.feature_type === "logit";
}

function layerOf(raw) {
  const layer = Number.parseInt(raw.layer, 10);
  return Number.isFinite(layer) ? layer : EMBEDDING_LAYER;
}

function finiteOrNull(value) {
  return typeof value === "number" && Number.isFinite(value) ? value : null;
}

/** The token in a logit's label `Output "…" (p=…)`, or the whole label if it is written otherwise. */
export function outputToken(clerp) {
  const match = /^Output "([\s\S]*)" \(p=[^()]*\)$/.exec(clerp);
  return match ? match[1] : clerp;
}

/** Cantor pairing of layer and feature index, exact below 2^53. */
export function cantor(layer, feature) {
  const sum = layer + feature;
  return (sum * (sum + 1)) / 2 + feature;
}

/** The inverse of `cantor` as [layer, feature]. The square root is corrected, so that large codes are exact too. */
export function uncantor(code) {
  let sum = Math.floor((Math.sqrt(8 * code + 1) - 1) / 2);
  while ((sum * (sum + 1)) / 2 > code) sum -= 1;
  while (((sum + 1) * (sum + 2)) / 2 <= code) sum += 1;
  const feature = code - (sum * (sum + 1)) / 2;
  return [sum - feature, feature];
}

function featureOf(raw, layer, metadata) {
  const code = Number(raw.feature);
  const [codedLayer, feature] = uncantor(code);
  const coded =
    Number(metadata.schema_version) >= 1 || String(raw.node_id).startsWith(`${layer}_${feature}_`);
  return coded && codedLayer === layer ? feature : code;
}

/** The links whose ends both exist, as typed arrays. */
function parseLinks(raw, indexById) {
  const source = new Int32Array(raw.length);
  const target = new Int32Array(raw.length);
  const weight = new Float64Array(raw.length);
  let count = 0;
  for (const link of raw) {
    const from = indexById.get(link.source);
    const to = indexById.get(link.target);
    if (from === undefined || to === undefined || !Number.isFinite(link.weight)) continue;
    source[count] = from;
    target[count] = to;
    weight[count] = link.weight;
    count += 1;
  }
  return [source.subarray(0, count), target.subarray(0, count), weight.subarray(0, count)];
}

/** The graph as its file has it, without what a view has added. */
export function fileGraph(graph) {
  return graph?.base ?? graph;
}

/** The same graph, of whose file the metadata have changed. */
export function withMetadata(graph, metadata) {
  const changed = { ...graph, metadata };
  if (graph.base) changed.base = withMetadata(graph.base, metadata);
  if (graph.original) changed.original = withMetadata(graph.original, metadata);
  if (graph.file) {
    const { root, replacement_score, completeness_score } = graph.metadata;
    changed.file = withMetadata(graph.file, metadata);
    changed.metadata = { ...metadata, root, replacement_score, completeness_score };
  }
  return Object.freeze(changed);
}

/** The outputs at the last position that has any: the next token's, and not those of a completion before it. */
export function lastOutputs(graph) {
  const outputs = graph.nodes.filter((node) => node.kind === "logit");
  const last = Math.max(...outputs.map((node) => node.position));
  return outputs.filter((node) => node.position === last);
}

/** The node that is explained most: the most likely output, or the feature that the graph was made for; null for a graph without targets. */
export function topLogit(graph) {
  const targets = graph.nodes.filter(({ kind, asTarget }) => kind === "logit" || asTarget > 0);
  return targets.reduce((best, node) => (best && best.asTarget >= node.asTarget ? best : node), null);
}

/** The largest node threshold to choose: the one that the file was pruned with, else 1. */
export function maxThreshold(graph) {
  const { node_threshold: own, pruning_settings: settings } = graph.metadata;
  return [own, settings?.node_threshold].find((value) => Number.isFinite(value) && value >= 0) ?? 1;
}

/** Words to find in a node, lower case: what the search box looks through. */
export function matchesQuery(node, label, query) {
  const words = query.toLowerCase().split(/\s+/).filter(Boolean);
  const place = node.layer < 0 ? "emb" : node.kind === "logit" ? "logit" : `l${node.layer}`;
  const text = `${label} ${node.id} ${node.token} ${node.kind} ${node.feature ?? ""}`.toLowerCase();
  return words.every((word) =>
    /^l\d+$/.test(word) ? place === word : text.includes(word) || place === word,
  );
}
