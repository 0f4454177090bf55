/* Notices when another program puts something about the graph into its file, such as a validation, while the page shows it. */

const PAUSE = 4000;

/**
 * Asks every few seconds, while the page is seen, whether the shown graph's file has changed.
 *
 * A change that leaves the annotations alone is passed to `onMetadata({metadata, etag})`. One of the annotations is somebody
 * else's edit: it is left to the next save, which the server refuses. Returns `{look, stop}`: to ask at once, and no more.
 */
export function watchFile(api, store, { onMetadata, later = setTimeout, isSeen = () => !document.hidden }) {
  let known = { slug: null, etag: null, params: null };
  let over = false;

  const isSaving = () => store.get("saving").kind === "saving";

  /** What is read while a save is under way is read again after it: the save may turn out to be refused because of it. */
  async function ask() {
    const [slug, etag] = [store.get("slug"), store.get("etag")];
    if (!etag || !isSeen() || isSaving()) return;
    const isKnown = known.slug === slug && known.etag === etag;
    const view = await api.readView(slug, isKnown ? etag : null);
    if (view === null || over || isSaving() || store.get("slug") !== slug || store.get("etag") !== etag) return;
    const params = JSON.stringify(view.qParams);
    if (view.etag === etag) known = { slug, etag, params };
    else if (isKnown && params === known.params) {
      known = { slug, etag: view.etag, params };
      onMetadata({ metadata: view.metadata, etag: view.etag });
    }
  }

  const look = () => ask().catch(() => {}); // The server may be away for a while; saving says so.

  async function turn() {
    if (over) return;
    await look();
    later(turn, PAUSE);
  }

  turn();
  return Object.freeze({
    look,
    stop() {
      over = true;
    },
  });
}
