/* Saves every edit after a short pause, one request at a time, and never over someone else's. */

import { toParams } from "./annotations.js";
import { maxThreshold } from "./graph.js";
import { completePositions } from "./supernodes.js";

const PAUSE = 500;
const RETRY = 4000;
const SAVED = ["pinned", "supernodes", "labels", "positions", "boxFrame", "expanded", "subgraphs", "subgraphName", "notes", "added", "linkType", "selected", "hidden", "threshold", "edgeThreshold"];

/**
 * Watches the store and saves through `save(slug, etag, params, options) -> etag`.
 *
 * `saving` in the store is `{kind, message}`: `idle`, `pending`, `saving`, `saved`, `failed` (tried again by itself) or
 * `conflict` (waits for `overwrite`). Returns `{dispose, flush, settle, overwrite, dirty}`.
 */
export function createAutosave(store, save, { later = setTimeout, forget = clearTimeout } = {}) {
  let timer = null;
  let running = null;
  let savedEdits = store.get("edits");
  let slug = store.get("slug");

  const dirty = () => store.get("edits") !== savedEdits;
  const report = (kind, message = "") => store.set({ saving: { kind, message } });

  function schedule(delay) {
    forget(timer);
    timer = later(flush, delay);
  }

  async function flush(options = {}) {
    forget(timer);
    if (running || !dirty() || !store.get("etag") || store.get("saving").kind === "conflict") return;
    running = write(options);
    await running;
    running = null;
    if (dirty() && store.get("saving").kind !== "conflict" && store.get("saving").kind !== "failed")
      schedule(PAUSE);
  }

  async function write(options) {
    const [edits, target] = [store.get("edits"), store.get("slug")];
    report("saving");
    try {
      const etag = await save(target, store.get("etag"), paramsOf(store), options);
      if (store.get("slug") === target) {
        savedEdits = edits;
        store.set({ etag, saving: { kind: dirty() ? "pending" : "saved", message: "" } });
      }
    } catch (error) {
      if (store.get("slug") === target) refused(error);
    }
  }

  /** Saves unsaved edits, after a running save. Returns whether the file has every edit; after a conflict it doesn't. */
  async function settle() {
    await running;
    await flush();
    return !dirty();
  }

  function refused(error) {
    if (error.status === 412) return report("conflict", "This graph was changed in another window.");
    report("failed", [error.message, error.hint].filter(Boolean).join(". "));
    if (error.status === 0 || error.status >= 500) schedule(RETRY);
  }

  /** After a conflict: takes the present tag and saves over the other version. */
  async function overwrite(etag) {
    store.set({ etag, saving: { kind: "pending", message: "" } });
    await flush();
  }

  const dispose = store.subscribe(["edits", "slug", "graph"], () => {
    if (store.get("slug") !== slug || store.get("edits") === 0) {
      [slug, savedEdits] = [store.get("slug"), store.get("edits")];
      return;
    }
    if (!dirty() || store.get("saving").kind === "conflict") return;
    if (store.get("saving").kind !== "saving") report("pending");
    schedule(PAUSE);
  });

  return Object.freeze({ dispose, flush, settle, overwrite, dirty });
}

/** The shown graph's annotations as its file keeps them. */
function paramsOf(store) {
  const graph = store.get("graph");
  const state = Object.fromEntries([...SAVED, "difference", "otherParams"].map((key) => [key, store.get(key)]));
  return toParams({ ...state, ...completePositions(graph, state) }, maxThreshold(graph));
}
