/* The graph with its annotations as one page to keep or send: made by the server, or by a page that has no server. */

import { download } from "./download.js";
import { annotationsOf, fileName } from "./transfer.js";

const TYPE = "text/html";

/** Commands of the menu: `downloadPage()` where a server makes the page, `saveCopy()` where the page is its own file. */
export function pageCommands(store, api, { flush }) {
  const name = () => fileName(store.get("slug"), ".html");
  if (api.pageWith) {
    return {
      saveCopy() {
        download(name(), api.pageWith(annotationsOf(store.get)), TYPE);
        store.set({ notice: `${name()} has the current annotations.` });
      },
    };
  }
  return {
    async downloadPage() {
      await flush();
      try {
        download(name(), await api.readPage(store.get("slug")), TYPE);
      } catch (error) {
        store.set({ notice: [error.message, error.hint].filter(Boolean).join(" – ") });
      }
    },
  };
}
