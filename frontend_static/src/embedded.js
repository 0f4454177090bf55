/* A standalone page with its graph: the same calls as the server's, answered from the document and the browser's storage. */

import { ApiError } from "./api.js";
import { cantor } from "./graph.js";

const ELEMENT = "embedded-graph";

/** The calls of `createApi` on what the page carries, or null for a page that a server sent. */
export function embeddedApi(page = document, storage = ownStorage()) {
  const element = page.getElementById(ELEMENT);
  if (!element) return null;
  const { graph, features, labels } = JSON.parse(element.textContent);
  const { slug, prompt } = graph.metadata;
  // A copy that was saved with other annotations is another page: this one's edits must not hide them.
  const key = `circuit-tracer:${slug}:${prompt}:${fingerprint(JSON.stringify(graph.qParams ?? {}))}`;
  let version = 1;
  let params = { ...graph.qParams, ...readJson(storage, key) };

  return Object.freeze({
    listGraphs: async () => ({ graphs: [graph.metadata], errors: [] }),
    async readGraph(wanted) {
      if (wanted !== slug) throw new ApiError(404, `This page contains only ${slug}`, "Open it without ?slug=");
      return { json: { ...graph, qParams: params }, etag: String(version) };
    },
    async saveAnnotations(_, __, next) {
      params = next;
      version += 1;
      if (!keep(storage, key, JSON.stringify(next)))
        throw new ApiError(507, "This browser doesn't store anything for pages from disk", "Edits last until the page is closed");
      return String(version);
    },
    /** This page as text, with other annotations in it. */
    pageWith: (next) => pageText(page, JSON.stringify({ graph: { ...graph, qParams: next }, features, labels })),
    liveTrace: async () => ({ state: "none" }),
    liveGraph: async () => null,
    proposedLabels: async () => labels,
    attention: Object.freeze({
      stored: async () =>
        graph.links.filter(({ heads }) => Array.isArray(heads)).map((link) => [link.source, link.target, link.weight, link.heads, link.heads_rest]),
    }),
    runs: Object.freeze({ model: async () => ({ state: "none" }) }),
    async feature(_, layer, feature) {
      const record = features?.[cantor(layer, feature)] ?? null;
      const reason = features === null ? "this page was made without feature examples" : "this page has no examples of this feature";
      const hint = features === null ? "circuit-tracer export --format html --features-dir FOLDER adds them" : "";
      return record ? { record } : { record: null, reason, hint };
    },
  });
}

const IN_HEAD = "meta, title, link[rel=icon], style, script[type=importmap]";
const IN_BODY = "#header, #panels, noscript, script";

/** The page as it was written, without what the viewer has put into it since, and with other content. */
function pageText(page, content) {
  const inert = content.replaceAll("<", "\\u003c");
  const parts = (parent, wanted) => [...parent.children].filter((element) => element.matches(wanted));
  const lines = [
    "<!doctype html>",
    '<html lang="en" data-theme="light">',
    "<head>",
    ...parts(page.head, IN_HEAD).map((element) => tagText(element, element.textContent)),
    "</head>",
    "<body>",
    ...parts(page.body, IN_BODY).map((element) =>
      tagText(element, element.id === ELEMENT ? inert : element.matches("#header, #panels") ? "" : element.textContent),
    ),
    "</body>",
    "</html>",
  ];
  return `${lines.join("\n")}\n`;
}

const RAW = new Set(["script", "style", "noscript"]);
const VOID = new Set(["meta", "link"]);
const escaped = (text) => text.replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll('"', "&quot;");

function tagText({ localName, attributes }, text) {
  const open = `<${localName}${[...attributes].map(({ name, value }) => ` ${name}="${escaped(value)}"`).join("")}>`;
  return VOID.has(localName) ? open : `${open}${RAW.has(localName) ? text : escaped(text)}</${localName}>`;
}

/** A short text that differs between texts (FNV-1a, 32 bits). */
function fingerprint(text) {
  let hash = 0x811c9dc5;
  for (let i = 0; i < text.length; i += 1) hash = Math.imul(hash ^ text.charCodeAt(i), 0x01000193);
  return (hash >>> 0).toString(16);
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
