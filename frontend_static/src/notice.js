/* A line at the bottom of the page that tells what just happened, and disappears by itself. */

import { h } from "./dom.js";

const [SHOWN, PER_LETTER] = [6000, 90];

export function noticeLine(store) {
  const element = h("div", { class: "notice", role: "status" });
  let timer = 0;
  store.subscribe(["notice"], () => {
    window.clearTimeout(timer);
    const text = store.get("notice") ?? "";
    element.textContent = text;
    if (text) timer = window.setTimeout(() => store.set({ notice: null }), Math.max(SHOWN, PER_LETTER * text.length));
  });
  return element;
}
