/* Makes elements. Text is always set as text. */

/** `h("button", {class: "row", onclick: f, "aria-label": "…"}, "text", child)`; null children are left out. */
export function h(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  setAttributes(element, attributes);
  element.append(...children.flat().filter((child) => child !== null && child !== undefined && child !== false));
  return element;
}

/** The same for SVG elements. */
export function svg(tag, attributes = {}, ...children) {
  const element = document.createElementNS("http://www.w3.org/2000/svg", tag);
  setAttributes(element, attributes);
  element.append(...children.flat());
  return element;
}

function setAttributes(element, attributes) {
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (name === "style") Object.entries(value).forEach(([key, part]) => element.style.setProperty(key, part));
    else element.setAttribute(name, value === true ? "" : value);
  }
}

/** The glyph of a node's kind: ● feature, ◆ error, ■ token and logit. */
export function glyph(kind) {
  return h("span", { class: `glyph glyph-${kind}`, "aria-hidden": "true" });
}

/** A text field in the place of an element: Enter or leaving it commits, Escape doesn't. */
export function editInPlace(element, value, commit) {
  let done = false;
  const finish = (keep) => {
    if (done) return;
    done = true;
    const text = field.value;
    field.replaceWith(element);
    if (keep) commit(text);
  };
  const field = h("input", {
    class: "edit-field",
    "aria-label": "Label",
    maxlength: "500",
    onblur: () => finish(true),
    onkeydown: (event) => {
      event.stopPropagation();
      if (event.key === "Enter") finish(true);
      if (event.key === "Escape") finish(false);
    },
    onclick: (event) => event.stopPropagation(),
    onpointerdown: (event) => event.stopPropagation(),
  });
  field.value = value;
  element.replaceWith(field);
  field.focus();
  field.select();
}
