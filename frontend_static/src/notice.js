/* A line at the foot of the page that says what just happened, and goes by itself. */

import { h } from "./dom.js";

const SHOWN = 6000;

export function noticeLine(store) {
  const element = h("div", { class: "notice", role: "status" });
  let timer = 0;
  store.subscribe(["notice"], () => {
    window.clearTimeout(timer);
    element.textContent = store.get("notice") ?? "";
    if (store.get("notice")) timer = window.setTimeout(() => store.set({ notice: null }), SHOWN);
  });
  return element;
}
