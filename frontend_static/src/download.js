/* Files to and from the person at the browser. */

import { h } from "./dom.js";

/** Hands over a file; `content` is text or a Blob. */
export function download(name, content, type) {
  const address = URL.createObjectURL(content instanceof Blob ? content : new Blob([content], { type }));
  const link = h("a", { href: address, download: name });
  document.body.append(link);
  link.click();
  link.remove();
  window.setTimeout(() => URL.revokeObjectURL(address), 60_000);
}

/** Asks for a file; gives its text. Nothing happens if none is chosen. */
export function chooseFile(accept, use) {
  const field = h("input", { type: "file", accept, hidden: true, id: "chosen-file" });
  field.addEventListener("change", async () => {
    const [file] = field.files;
    field.remove();
    if (file) use(await file.text(), file.name);
  });
  field.addEventListener("cancel", () => field.remove());
  document.body.append(field);
  field.click();
}
