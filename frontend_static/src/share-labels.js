/* The menu's two commands about shared labels: a file out of the set, and one into it. */

import { chooseFile, download } from "./download.js";
import { readLabelFile } from "./label-exchange.js";
import { fileName } from "./transfer.js";

/** `ask` is the dialog's, `after()` runs when labels have changed. */
export function labelCommands(store, api, { ask, after }) {
  const tell = (notice) => store.set({ notice });

  async function exportLabels() {
    try {
      const labels = await api.sharedLabels(store.get("slug"));
      const count = Object.keys(labels.labels).length;
      if (count === 0) return tell("No feature of this transcoder set has a label yet.");
      const name = fileName(String(labels.set).split("/").at(-1), ".labels.json");
      download(name, `${JSON.stringify(labels, null, 1)}\n`, "application/json");
      tell(`Wrote ${count.toLocaleString("en")} ${count === 1 ? "label" : "labels"} of ${labels.set}, with author and time.`);
    } catch (error) {
      tell([error.message, error.hint].filter(Boolean).join(" – "));
    }
  }

  async function take(text, name) {
    try {
      const file = readLabelFile(text);
      const slug = store.get("slug");
      const here = await api.sharedLabels(slug);
      const choice = await ask(file, here.labels, { name, scan: here.set });
      if (choice === null) return;
      const { taken, kept } = await api.takeLabels(slug, { labels: file.labels }, { replace: choice === "replace" });
      tell(`Took ${taken.toLocaleString("en")} ${taken === 1 ? "label" : "labels"}${kept > 0 ? `, kept ${kept.toLocaleString("en")} of mine` : ""}.`);
      await after(slug);
    } catch (error) {
      tell([error.message, error.hint].filter(Boolean).join(" – "));
    }
  }

  return { exportLabels, importLabels: () => chooseFile(".json,application/json", take) };
}
