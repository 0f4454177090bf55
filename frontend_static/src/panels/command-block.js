/* A command to type elsewhere, with a button that copies it. */

import { h } from "../dom.js";

const SHOWN = 2500;

export function commandBlock(text) {
  const command = h("pre", { class: "command" }, text);
  const copy = h("button", { class: "small copy", type: "button", "aria-live": "polite", onclick: put }, "Copy");

  async function put() {
    try {
      await navigator.clipboard.writeText(text);
      copy.textContent = "Copied";
    } catch {
      window.getSelection().selectAllChildren(command);
      copy.textContent = "Selected: press Ctrl-C";
    }
    window.setTimeout(() => {
      copy.textContent = "Copy";
    }, SHOWN);
  }

  return h("div", { class: "command-block" }, command, copy);
}
