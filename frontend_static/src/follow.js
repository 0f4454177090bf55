/* Traces that the page follows: one that was running when it was opened, and those that it started, one after the other. */

import { fromParams } from "./annotations.js";
import { parseGraph } from "./graph.js";
import { capital, followTrace, mergedAnnotations, progressStrip } from "./live.js";
import { loadGraph } from "./load.js";
import { runFeed } from "./new-graph.js";

/**
 * `page` are main's `show`, `renew`, `open`, `report`, `refreshList`, `readProposedLabels`, `mayLeave(slug)`, `home()` and `hideMessage()`.
 *
 * `follow(live)` follows a trace that somebody else has started, `followRun(run, asked, onFailed)` one of this page: its graph is shown as
 * soon as there is something of it, unless somebody has opened another meanwhile or what is shown has edits that can't be saved.
 */
export function createFollower(store, api, autosave, page, clock = {}) {
  let latest = null;
  let current = null;
  const waiting = [];
  const showing = createShowing(store, api, autosave, page);
  const strip = progressStrip({
    onShow: async () => (await page.mayLeave(latest.metadata.slug)) && showing.partial(latest),
    onCancel: () => api.runs.cancel(current.run).catch(() => {}),
  });

  /** The graph under way, once there is something of it. */
  function open(slug) {
    if (latest) return showing.partial(latest);
    store.set({ notice: "Its graph appears as soon as the first rows are traced.", tracing: { ...store.get("tracing"), slug } });
  }

  /** Follows to the end. What was selected and edited on the partial graph stays. */
  function follow(trace, source = api) {
    if (current) return waiting.push([trace, source]);
    const { slug, prompt } = trace;
    current = trace;
    latest = null;
    let shown = null;
    const before = store.get("slug");
    store.set({ tracing: Object.freeze({ slug, prompt }), slug: before ?? slug });
    const isShown = () => store.get("graph") === null || store.get("slug") === (shown ?? slug);
    const isAwaited = () => trace.run && shown === null && store.get("slug") === before;

    async function onGraph(json) {
      const settled = shown !== null || (await autosave.settle());
      if (current !== trace) return;
      latest = json;
      if (!isShown() && !(isAwaited() && settled)) return;
      shown = json.metadata.slug;
      showing.partial(json);
    }

    async function onEnd(now) {
      strip.update(trace.onFailed && now.state === "failed" ? { ...now, state: "done" } : now);
      const wanted = isShown() || isAwaited();
      current = null;
      store.set({ tracing: null });
      await page.refreshList();
      const stays = now.state === "done" && wanted && (await showing.finished(now.slug ?? slug, shown !== null));
      const notice = [stays, now.note && capital(now.note)].filter(Boolean).join(" ");
      if (notice) store.set({ notice });
      if (now.state === "failed" && trace.onFailed) trace.onFailed(now);
      if (trace.run && ["failed", "cancelled"].includes(now.state) && shown && store.get("slug") === shown) await page.home(before);
      if (waiting.length > 0) follow(...waiting.shift());
    }

    const onStatus = (now) => strip.update({ ...now, run: trace.run }, { elsewhere: latest !== null && !isShown() });
    followTrace(source, { onStatus, onGraph, onEnd, ...clock });
  }

  return Object.freeze({
    strip,
    open,
    follow: (live) => follow(live, live.run ? runFeed(api, live.run) : api),
    followRun: (run, asked, onFailed) => follow({ ...asked, run: run.id, onFailed }, runFeed(api, run.id)),
  });
}

/** Puts what a trace has made on the page: `partial(json)` as it grows, `finished(slug, wasShown)` at its end, which says why where it doesn't. */
function createShowing(store, api, autosave, page) {
  function partial(json) {
    const { slug } = json.metadata;
    if (store.get("graph") && store.get("slug") === slug) page.renew(parseGraph(json), null);
    else page.show(slug, parseGraph(json), null, json.qParams);
    page.hideMessage();
    page.readProposedLabels(slug);
  }

  async function finished(slug, wasShown) {
    if (slug !== store.get("slug") && !(await autosave.settle()))
      return `${slug} is traced; choose it at the top. This graph stays open because it has unsaved edits.`;
    const goesOn = wasShown && store.get("slug") === slug;
    if (!goesOn || store.get("edits") === 0) {
      await page.open(slug, goesOn && store.get("graph") ? { clickedId: store.get("selected") ?? "" } : {});
      return null;
    }
    try {
      const { graph, params, etag } = await loadGraph(api, slug);
      const { otherParams, ...theirs } = fromParams(params);
      const ours = Object.fromEntries(["pinned", "supernodes", "labels", "notes"].map((key) => [key, store.get(key)]));
      page.renew(graph, etag, { ...mergedAnnotations(ours, theirs), otherParams });
      await autosave.flush();
    } catch (error) {
      page.report(error);
      return null;
    }
    await page.readProposedLabels(slug);
    return null;
  }

  return Object.freeze({ partial, finished });
}
