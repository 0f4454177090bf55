/* All graphs of the folder: found by words, opened, added from a file, renamed, copied, deleted and brought back. */

import { editInPlace, h } from "../dom.js";
import { chooseFile } from "../download.js";
import { number, showToken } from "../format.js";

/**
 * `{dialog, open, take}`; `take(text, name)` adds a file that was dropped on the page. `api.library` is absent where the folder can't be changed, and
 * then so are the buttons that would.
 */
export function libraryDialog(store, api, { open: openGraph, refresh, left }) {
  const field = h("input", { class: "search", type: "search", placeholder: "Search names and prompts", "aria-label": "Search graphs", autocomplete: "off" });
  const list = h("div", { class: "library-list scroll", role: "list" });
  const status = h("div", { class: "library-status", role: "status" });
  const add = h("button", { class: "small", type: "button" }, "Add a file …");
  const dialog = h(
    "dialog",
    { class: "sheet library", "aria-label": "Graphs" },
    h("div", { class: "library-head" }, h("h2", {}, "Graphs"), field, api.library && add, closeButton()),
    status,
    list,
    api.library && h("p", { class: "muted" }, "You can also drop a graph file anywhere on this page."),
  );
  const say = (...content) => status.replaceChildren(...content);

  /** Does something with the folder, tells what went wrong in words, and lists it again. */
  async function change(work) {
    try {
      await work();
      await refresh();
    } catch (error) {
      say([error.message, error.hint].filter(Boolean).join(". "));
    }
    render();
  }

  const take = (text, name) =>
    change(async () => {
      const { slug } = await api.library.upload(text);
      say(`Added ${name} as ${slug}.`);
      await refresh();
      dialog.close();
      await openGraph(slug);
    });

  const remove = (slug) =>
    change(async () => {
      await api.library.remove(slug);
      const undo = h("button", { class: "small", type: "button" }, "Undo");
      undo.addEventListener("click", () =>
        change(async () => {
          await api.library.restore(slug);
          say(`${slug} is back.`);
        }),
      );
      say(`Deleted ${slug}. `, undo);
      if (slug === store.get("slug")) await left(slug);
    });

  const rename = (slug, title) =>
    editInPlace(title, slug, (text) => {
      const name = text.trim();
      if (name && name !== slug) change(() => api.library.rename(slug, name).then(() => slug === store.get("slug") && openGraph(name)));
    }, { name: "Name of the graph" });

  function row(graph) {
    const title = h("strong", { dir: "auto" }, graph.slug);
    const open = () => {
      dialog.close();
      openGraph(graph.slug);
    };
    const actions = api.library && [
      ["Rename", () => rename(graph.slug, title)],
      ["Duplicate", () => change(() => api.library.duplicate(graph.slug))],
      ["Delete", () => remove(graph.slug)],
    ];
    return h(
      "div",
      { class: graph.slug === store.get("slug") ? "library-row is-selected" : "library-row", role: "listitem" },
      h(
        "button",
        { class: "library-open", type: "button", onclick: open, "aria-label": `Open ${graph.slug}` },
        title,
        h("span", { class: "library-prompt", dir: "auto" }, showToken(graph.prompt ?? "")),
        h("span", { class: "muted" }, facts(graph).join(" · ")),
      ),
      actions && h("div", { class: "library-actions" }, ...actions.map(([name, run]) => h("button", { class: "small", type: "button", "aria-label": `${name} ${graph.slug}`, onclick: run }, name))),
    );
  }

  function render() {
    if (!dialog.open) return;
    const words = field.value.toLowerCase().split(/\s+/).filter(Boolean);
    const text = (graph) => `${graph.slug} ${graph.title ?? ""} ${graph.title_prefix ?? ""} ${graph.prompt ?? ""} ${graph.scan ?? ""} ${graph.folder ?? ""}`.toLowerCase();
    const found = store.get("graphs").filter((graph) => words.every((word) => text(graph).includes(word)));
    const broken = words.length > 0 ? [] : store.get("problems").map(({ slug, error }) => h("div", { class: "library-row muted", role: "listitem" }, `${slug}: ${error}`));
    const none = h("p", { class: "muted none" }, store.get("graphs").length === 0 ? "No graphs yet. Add a file, or trace a prompt with circuit-tracer attribute." : "No graph matches.");
    list.replaceChildren(...(found.length > 0 ? found.map(row) : [none]), ...broken);
  }

  function closeButton() {
    return h("button", { class: "small", type: "button", onclick: () => dialog.close() }, "Close");
  }

  field.addEventListener("input", render);
  add.addEventListener("click", () => chooseFile(".json,application/json", take));
  store.subscribe(["graphs", "problems", "slug"], render);
  const open = () => {
    say();
    dialog.showModal();
    field.value = "";
    render();
    field.focus();
    refresh();
  };
  return { dialog, open, take };
}

function facts(graph) {
  const made = graph.info?.create_time_ms ?? graph.create_time_ms;
  const scores = { ...graph.scores, ...graph.info };
  const [replacement, completeness] = [scores.replacement_score ?? scores.replacement, scores.completeness_score ?? scores.completeness];
  return [
    graph.title,
    graph.folder,
    Array.isArray(graph.scan) ? graph.scan.join(", ") : graph.scan,
    Number.isFinite(made) && new Date(made).toLocaleString(undefined, { dateStyle: "medium", timeStyle: "short" }),
    Number.isFinite(replacement) && `replacement ${number(replacement)}`,
    Number.isFinite(completeness) && `completeness ${number(completeness)}`,
  ].filter(Boolean);
}
