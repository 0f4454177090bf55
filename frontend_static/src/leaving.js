/* Before another graph is shown: the current one's edits are saved, or the user discards them. */

/** `mayLeave(slug)`: whether the graph `slug` may be shown now. Asks only where edits of another one can't be saved. */
export function createLeaving(store, autosave, ask = (question) => window.confirm(question)) {
  return async (slug) => slug === store.get("slug") || (await autosave.settle()) || ask(question(store, slug));
}

function question(store, slug) {
  const reason = store.get("saving").message;
  return `Edits of ${store.get("slug")} aren't saved${reason ? `. ${reason.replace(/\.$/, "")}` : ""}. Show ${slug} and lose them?`;
}
