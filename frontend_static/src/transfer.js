/* Annotations as a file of their own: to keep, to send, to lay over another copy of the same graph. Pure. */

import { fromParams, readPositions, toParams } from "./annotations.js";
import { maxThreshold } from "./graph.js";
import { completePositions, makeBoxes } from "./supernodes.js";

const FORMAT = "circuit-tracer-annotations";
const KNOWN = ["pinnedIds", "supernodes", "clerps", "notes", "hiddenIds", "sg_pos", "clickedId", "pruningThreshold"];

const ANNOTATIONS = ["pinned", "supernodes", "labels", "positions", "boxFrame", "expanded", "subgraphs", "subgraphName", "notes", "added", "hidden", "linkType", "selected", "threshold", "edgeThreshold", "otherParams"];

/** The `qParams` of the graph that is shown; `get(key)` reads the store. */
export function annotationsOf(get) {
  const [graph, state] = [get("graph"), Object.fromEntries(ANNOTATIONS.map((key) => [key, get(key)]))];
  return toParams({ ...state, ...completePositions(graph, state) }, maxThreshold(graph));
}

/** The annotations of the graph that is shown, as the text of a JSON file. */
export function exportAnnotations(state) {
  const { graph } = state;
  const document = {
    format: FORMAT,
    version: 1,
    slug: state.slug,
    scan: graph.metadata.scan ?? null,
    prompt: graph.metadata.prompt ?? "",
    qParams: toParams({ ...state, ...completePositions(graph, state) }, maxThreshold(graph)),
  };
  return `${JSON.stringify(document, null, 2)}\n`;
}

/**
 * Reads such a file; a whole graph file, or a bare `qParams` object, will do too.
 *
 * Returns `{edit, missing, other}`: the values to edit the store with, how many node ids the graph doesn't have, and the slug if the file was
 * written for another prompt. Throws an Error with a message for people.
 */
export function importAnnotations(text, graph) {
  let document;
  try {
    document = JSON.parse(text);
  } catch {
    throw new Error("This file isn't JSON.");
  }
  const params = document?.qParams ?? document;
  if (params === null || typeof params !== "object" || !KNOWN.some((key) => key in params))
    throw new Error("This file has no annotations: no pins, groups, labels or notes.");
  const { pinned, supernodes, labels, notes, savedPositions, boxFrame, expanded, subgraphs, subgraphName } = fromParams(params);
  const here = (id) => graph.index(id) >= 0;
  const ids = [...pinned, ...supernodes.flatMap(([, ...members]) => members), ...Object.keys(notes.nodes)];
  const kept = {
    pinned: pinned.filter(here),
    supernodes: supernodes
      .map(([label, ...members]) => Object.freeze([label, ...members.filter(here)]))
      .filter((group) => group.length > 1),
    labels,
    expanded: expanded.filter(here),
    subgraphs,
    subgraphName,
    notes: Object.freeze({
      graph: notes.graph,
      nodes: Object.freeze(Object.fromEntries(Object.entries(notes.nodes).filter(([id]) => here(id)))),
    }),
  };
  const keys = makeBoxes(graph, kept.pinned, kept.supernodes, kept.expanded).map((box) => box.key);
  const prompt = document.prompt ?? document.metadata?.prompt;
  const positions = readPositions(savedPositions, keys);
  return {
    edit: { ...kept, positions, boxFrame: Object.keys(positions).length > 0 ? boxFrame : null },
    missing: new Set(ids.filter((id) => !here(id))).size,
    other: typeof prompt === "string" && prompt !== (graph.metadata.prompt ?? "") ? prompt : null,
  };
}

/** A slug as the beginning of a file's name. */
export function fileName(slug, rest) {
  const stem = (slug ?? "graph").replace(/[^\p{L}\p{N}._-]+/gu, "-").replace(/^[-.]+|-+$/g, "").slice(0, 80);
  return `${stem || "graph"}${rest}`;
}
