/* The difference of two outputs as one more node, whose links are those of the one minus those of the other. Pure. */

import { percent, tokenLabel } from "./format.js";
import { fileGraph, graphWithLinks, lastOutputs } from "./graph.js";

const BETWEEN = "__vs__";

/** The next token's outputs in the file, most likely first. */
export function outputs(graph) {
  return lastOutputs(fileGraph(graph)).sort((a, b) => b.probability - a.probability || a.index - b.index);
}

/** `A__vs__B` for two outputs, by their tokens where those tell them apart, else by their ids. */
export function writeDifference(graph, a, b) {
  return [a, b].map((node) => wordFor(graph, node)).join(BETWEEN);
}

/** The two outputs that such a text names, `{a, b}`, or null. Blanks around tokens may be missing. */
export function readDifference(graph, text) {
  const all = outputs(graph);
  for (let at = text?.indexOf(BETWEEN) ?? -1; at >= 0; at = text.indexOf(BETWEEN, at + 1)) {
    const [a, b] = [text.slice(0, at), text.slice(at + BETWEEN.length)].map((word) => named(all, word));
    if (a && b && a !== b) return { a, b };
  }
  return null;
}

/**
 * A caveat on the difference of `{a, b}`: pruning goes by probability, so that a file can hold few links into
 * the less likely output, or none. Null where both have as many.
 */
export function differenceCaveat(graph, { a, b }) {
  const base = fileGraph(graph);
  const [into, from] = [a, b].map((node) => [...base.inputs(node.index)].length);
  if (into === from) return null;
  const [name, other] = [a, b].map((node) => `“${tokenLabel(node.logitToken || node.id)}”`);
  const traced = `circuit-tracer attribute --target "${a.logitToken.trim()} - ${b.logitToken.trim()}" traces the difference itself.`;
  const empty = into === 0 ? name : from === 0 ? other : null;
  const said = empty
    ? `This file has no links into ${empty}: what you see here is only the other output, and even the signs can mislead.`
    : `This file has ${into.toLocaleString("en")} links into ${name} and ${from.toLocaleString("en")} into ${other}; pruned links are missing here.`;
  return { isEmpty: empty !== null, text: `${said} ${traced}` };
}

function wordFor(graph, node) {
  const word = node.logitToken;
  const alike = outputs(graph).filter((other) => other.logitToken === word || other.id === word);
  return word === "" || word.includes(BETWEEN) || alike.length > 1 ? node.id : word;
}

function named(all, word) {
  return (
    all.find((node) => node.id === word) ??
    all.find((node) => node.logitToken === word) ??
    all.find((node) => node.logitToken.trim() === word.trim()) ??
    null
  );
}

/**
 * The graph with the node of a difference, the last one. Links of the file keep their numbers. Without a difference, or with one
 * that the file's outputs don't have, the graph of the file itself.
 */
export function withDifference(graph, text) {
  const base = fileGraph(graph);
  const pair = readDifference(base, text);
  if (!pair) return base;
  const node = differenceNode(base, pair);
  const { added, parents } = differenceLinks(base, pair);
  const links = extended(base, added);
  const extension = {
    ...base,
    base,
    nodes: Object.freeze([...base.nodes, node]),
    index: (id) => (id === node.id ? node.index : base.index(id)),
    node: (id) => (id === node.id ? node : base.node(id)),
    /** Bytes for all links from those of the file's: a link of the difference is kept with either of the two behind it. */
    keptToo(kept) {
      const bytes = new Uint8Array(links.source.length);
      bytes.set(kept);
      parents.forEach((behind, i) => {
        bytes[base.links.source.length + i] = behind.some((k) => kept[k]) ? 1 : 0;
      });
      return bytes;
    },
  };
  return graphWithLinks(extension, links);
}

function differenceNode(base, { a, b }) {
  const alike = tokenLabel(a.logitToken) === tokenLabel(b.logitToken);
  const name = (node) => `${tokenLabel(node.logitToken || node.id)}${alike ? ` (${percent(node.probability)})` : ""}`;
  return Object.freeze({
    ...a,
    index: base.nodes.length,
    id: `virtual-diff-${wordFor(base, a)}-vs-${wordFor(base, b)}`,
    clerp: "",
    logitToken: `${name(a)} − ${name(b)}`,
    probability: 0,
    asTarget: 0,
    influence: null,
    activation: null,
    difference: Object.freeze({ a: a.id, b: b.id }),
  });
}

/** Per source of either output the weight into the one minus that into the other, strongest first, and the links behind it. */
function differenceLinks({ inputs, links }, { a, b }) {
  const found = new Map();
  const add = (node, sign) => {
    for (const k of inputs(node.index)) {
      const entry = found.get(links.source[k]) ?? { source: links.source[k], weight: 0, behind: [] };
      entry.weight += sign * links.weight[k];
      entry.behind.push(k);
      found.set(entry.source, entry);
    }
  };
  add(a, 1);
  add(b, -1);
  const added = [...found.values()].filter(({ weight }) => weight !== 0);
  added.sort((one, other) => Math.abs(other.weight) - Math.abs(one.weight) || one.source - other.source);
  return { added, parents: added.map(({ behind }) => behind) };
}

/** The typed arrays with the new links at their end, and the indexes with them in their places. */
function extended({ links, nodes }, added) {
  const [before, nodeCount] = [links.source.length, nodes.length];
  const sum = added.reduce((total, { weight }) => total + Math.abs(weight), 0);
  const share = joined(links.share, added.map(({ weight }) => weight / (sum || 1)));
  const fresh = added.map((_, i) => before + i);
  const stronger = (one, other) => Math.abs(share[one]) >= Math.abs(share[other]);
  const bySource = new Uint32Array(links.bySource.length + added.length);
  const sourceStart = new Uint32Array(nodeCount + 2);
  const linkOf = new Map(added.map(({ source }, i) => [source, before + i]));
  let at = 0;
  const put = (k) => {
    bySource[at] = k;
    at += 1;
  };
  for (let node = 0; node < nodeCount; node += 1) {
    let waiting = linkOf.get(node);
    for (let i = links.sourceStart[node]; i < links.sourceStart[node + 1]; i += 1) {
      if (waiting !== undefined && !stronger(links.bySource[i], waiting)) {
        put(waiting);
        waiting = undefined;
      }
      put(links.bySource[i]);
    }
    if (waiting !== undefined) put(waiting);
    sourceStart[node + 1] = at;
  }
  sourceStart[nodeCount + 1] = at;
  return {
    ...links,
    count: links.count + added.length,
    source: joined(links.source, added.map(({ source }) => source)),
    target: joined(links.target, added.map(() => nodeCount)),
    weight: joined(links.weight, added.map(({ weight }) => weight)),
    share,
    inputAbsSum: joined(links.inputAbsSum, [sum]),
    strongest: merged(links.strongest, fresh, stronger),
    byTarget: joined(links.byTarget, fresh),
    targetStart: joined(links.targetStart, [links.byTarget.length + added.length]),
    bySource,
    sourceStart,
  };
}

function joined(array, more) {
  const whole = new array.constructor(array.length + more.length);
  whole.set(array);
  whole.set(more, array.length);
  return whole;
}

function merged(order, fresh, stronger) {
  const whole = new Uint32Array(order.length + fresh.length);
  let [i, j] = [0, 0];
  for (let at = 0; at < whole.length; at += 1) {
    const old = j === fresh.length || (i < order.length && stronger(order[i], fresh[j]));
    whole[at] = old ? order[i] : fresh[j];
    if (old) i += 1;
    else j += 1;
  }
  return whole;
}
