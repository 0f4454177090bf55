/* The folder's graphs as the picker lists them, read again now and then while the page is seen. Pure but for the clock. */

import { showToken } from "./format.js";

const PAUSE = 8000;
const PAUSE_WHILE_EMPTY = 2000;

/**
 * What the picker offers: `[{value, text, disabled}]`. The graph that is being traced is there from the beginning; files that can't be read
 * stand at the end.
 */
export function listEntries({ graphs, problems, tracing }) {
  const growing = tracing && !graphs.some(({ slug }) => slug === tracing.slug) ? [tracing] : [];
  const named = [...growing, ...graphs].map((graph) => ({
    value: graph.slug,
    text: `${entryText(graph)}${graph.slug === tracing?.slug ? " · being traced" : ""}`,
    disabled: false,
  }));
  const broken = problems.map(({ slug, error }) => ({ value: slug, text: `${slug} — ${error}`, disabled: true }));
  return [...named, ...broken];
}

function entryText({ title_prefix: prefix, slug, prompt }) {
  return [prefix, slug, prompt && `— ${showToken(prompt).slice(0, 90)}`].filter(Boolean).join(" ");
}

/** Reads the list every few seconds; `onFirst()` is called when graphs appear in a folder that had none. Returns the function that ends it. */
export function watchList(api, store, { onFirst, later = setTimeout, isSeen = () => !document.hidden }) {
  let over = false;

  async function look() {
    if (over) return;
    if (isSeen()) {
      const before = store.get("graphs").length;
      const found = await api.listGraphs().catch(() => null);
      if (found) take({ graphs: found.graphs, problems: found.errors ?? [] });
      if (before === 0 && store.get("graphs").length > 0) onFirst();
    }
    wait();
  }

  function take(found) {
    if (Object.keys(found).some((key) => JSON.stringify(found[key]) !== JSON.stringify(store.get(key)))) store.set(found);
  }

  function wait() {
    if (!over) later(look, store.get("graphs").length === 0 ? PAUSE_WHILE_EMPTY : PAUSE);
  }

  wait();
  return () => {
    over = true;
  };
}
