/* A page that carries its graph in itself: the same calls as the server's, answered from the document and the browser's own storage. */

import { ApiError } from "./api.js";
import { cantor } from "./graph.js";

const ELEMENT = "embedded-graph";

/** The calls of `createApi` on what the page carries, or null for a page that a server sent. */
export function embeddedApi(page = document, storage = ownStorage()) {
  const element = page.getElementById(ELEMENT);
  if (!element) return null;
  const { graph, features, labels } = JSON.parse(element.textContent);
  const { slug, prompt } = graph.metadata;
  const key = `circuit-tracer:${slug}:${prompt}`;
  let version = 1;
  let params = { ...graph.qParams, ...readJson(storage, key) };

  return Object.freeze({
    listGraphs: async () => ({ graphs: [graph.metadata], errors: [] }),
    async readGraph(wanted) {
      if (wanted !== slug) throw new ApiError(404, `This page holds ${slug} alone`, "Open it without ?slug=");
      return { json: { ...graph, qParams: params }, etag: String(version) };
    },
    async saveAnnotations(_, __, next) {
      params = next;
      version += 1;
      if (!keep(storage, key, JSON.stringify(next)))
        throw new ApiError(507, "This browser keeps nothing for pages from disk", "Edits last until the page is closed");
      return String(version);
    },
    liveTrace: async () => ({ state: "none" }),
    liveGraph: async () => null,
    proposedLabels: async () => labels,
    runs: Object.freeze({ model: async () => ({ state: "none" }) }),
    async feature(_, layer, feature) {
      const record = features?.[cantor(layer, feature)] ?? null;
      const reason = features === null ? "this page was made without feature examples" : "this page holds no examples of this feature";
      const hint = features === null ? "circuit-tracer export --format html --features-dir FOLDER puts them in" : "";
      return record ? { record } : { record: null, reason, hint };
    },
  });
}

function ownStorage() {
  try {
    return window.localStorage;
  } catch {
    return null;
  }
}

function readJson(storage, key) {
  try {
    return JSON.parse(storage.getItem(key)) ?? {};
  } catch {
    return {};
  }
}

function keep(storage, key, text) {
  try {
    storage.setItem(key, text);
    return true;
  } catch {
    return false;
  }
}
