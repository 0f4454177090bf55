/* Makes elements. Text is always set as text. */

/** `h("button", {class: "row", onclick: f, "aria-label": "…"}, "text", child)`; null children are left out. */
export function h(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  setAttributes(element, attributes);
  element.append(
    ...children.flat(2).filter((child) => child !== null && child !== undefined && child !== false),
  );
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
    else if (name === "style")
      Object.entries(value).forEach(([key, part]) => element.style.setProperty(key, part));
    else element.setAttribute(name, value === true ? "" : value);
  }
}

/** The glyph of a node's kind: ● feature, ◆ error, ■ token and logit. */
export function glyph(kind) {
  return h("span", { class: `glyph glyph-${kind}`, "aria-hidden": "true" });
}

/** Calls the listener now and whenever the element's size changes. Returns the function that ends it. */
export function watchSize(element, listener) {
  const observer = new ResizeObserver(() => listener());
  observer.observe(element);
  return () => observer.disconnect();
}

/** Replaces an element's children; if a node's row had the focus, the same node's new row gets it. */
export function replaceKeepingFocus(element, ...children) {
  const focused = element.contains(document.activeElement) ? document.activeElement.dataset.node : undefined;
  element.replaceChildren(...children);
  if (focused !== undefined)
    element.querySelector(`[data-node="${CSS.escape(focused)}"]`)?.focus({ preventScroll: true });
}

/**
 * Makes the rows (`.node-row`, `.more`, `.fold`) in an element one stop of the Tab key, which is the row that had the focus last; arrow keys go from row
 * to row, and between columns. Call it again after the rows have changed.
 */
export function oneTabStop(element) {
  const rows = () => [...element.querySelectorAll(".node-row, .more, .fold")].filter((row) => row.offsetParent !== null || row === document.activeElement);
  const settle = (stop) => element.querySelectorAll(".node-row, .more, .fold").forEach((row) => row.setAttribute("tabindex", row === stop ? "0" : "-1"));
  settle(element.contains(document.activeElement) ? document.activeElement : element.querySelector(".node-row, .more, .fold"));
  if (element.dataset.oneStop) return;
  element.dataset.oneStop = "yes";
  element.addEventListener("focusin", (event) => event.target.matches(".node-row, .more, .fold") && settle(event.target));
  element.addEventListener("keydown", (event) => {
    const all = rows();
    const at = all.indexOf(event.target);
    const step = { ArrowDown: 1, ArrowUp: -1, ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (at < 0 || !step || event.ctrlKey || event.metaKey || event.altKey || event.defaultPrevented) return;
    const columns = [...element.querySelectorAll(".column")];
    const column = columns.findIndex((part) => part.contains(event.target));
    const next = /Left|Right/.test(event.key) ? columns[column + step]?.querySelector(".node-row, .more, .fold") : all[at + step];
    event.preventDefault();
    event.stopPropagation();
    next?.focus();
  });
}

const ICONS = {
  undo: "M7 5 3 9l4 4M3.5 9H12a4.5 4.5 0 0 1 0 9H8",
  redo: "m13 5 4 4-4 4M16.5 9H8a4.5 4.5 0 0 0 0 9h4",
  link: "M8.5 11.5a3.5 3.5 0 0 0 5 0l3-3a3.5 3.5 0 0 0-5-5l-1 1M11.5 8.5a3.5 3.5 0 0 0-5 0l-3 3a3.5 3.5 0 0 0 5 5l1-1",
  theme: "M10 3a7 7 0 1 0 0 14zM10 3a7 7 0 0 1 0 14",
  help: "M7.5 7.5a2.5 2.5 0 1 1 3.6 2.2c-.8.4-1.1.9-1.1 1.8M10 14.5v.1M10 2.5a7.5 7.5 0 1 0 0 15 7.5 7.5 0 0 0 0-15",
  check: "m4 10.5 4 4 8-9",
  grip: "M7 4v.1M13 4v.1M7 10v.1M13 10v.1M7 16v.1M13 16v.1",
  menu: "M3.5 5.5h13M3.5 10h13M3.5 14.5h13",
  info: "M10 9v5M10 6v.1M10 2.5a7.5 7.5 0 1 0 0 15 7.5 7.5 0 0 0 0-15",
  note: "M4.5 3.5h11v13h-11zM7 7.5h6M7 10.5h6M7 13.5h3",
  expand: "M4 8V4h4M16 12v4h-4M4 4l5 5M16 16l-5-5",
  collapse: "M9 5v4H5M11 15v-4h4M9 9 4 4M11 11l5 5",
  plus: "M10 4v12M4 10h12",
  minus: "M4 10h12",
  fit: "M4 8V4h4M12 4h4v4M16 12v4h-4M8 16H4v-4",
  folder: "M3 6.5V15h14V7.5H10L8.5 5H3z",
  cross: "m5 5 10 10M15 5 5 15",
};

/** A line drawing in the text's colour. */
export function icon(name) {
  return svg(
    "svg",
    { viewBox: "0 0 20 20", class: "icon-drawing", "aria-hidden": "true" },
    svg("path", { d: ICONS[name] }),
  );
}

/** A text field in the place of an element: Enter or leaving it commits, Escape doesn't; `ended` is called after either. */
export function editInPlace(element, value, commit, { name = "Label", ended = () => {} } = {}) {
  let done = false;
  const finish = (keep) => {
    if (done) return;
    done = true;
    const text = field.value;
    field.replaceWith(element);
    if (keep) commit(text);
    ended();
  };
  const field = h("input", {
    class: "edit-field",
    "aria-label": name,
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
