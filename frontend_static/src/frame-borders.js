/* The bars between panels: dragged with the pointer, or moved with the arrow keys. */

import { keepLayout } from "./arrangement.js";
import { h } from "./dom.js";
import { COLUMNS, ROWS, borders, moveBorder } from "./grid.js";

/** Keeps one bar per border in `main`. Returns the function that ends it. */
export function useBorders(main, store) {
  const holder = h("div", { class: "borders" });
  main.append(holder);

  function build() {
    if (holder.querySelector(".dragged")) return;
    const focused = holder.contains(document.activeElement) ? document.activeElement.dataset.border : null;
    const maximised = store.get("maximised") !== null;
    const found = maximised ? [] : borders(store.get("layout"));
    holder.replaceChildren(...found.map((border) => bar(main, store, border, build)));
    if (focused) holder.querySelector(`[data-border="${focused}"]`)?.focus();
  }

  build();
  return store.subscribe(["layout", "maximised"], build);
}

function bar(main, store, border, rebuild) {
  const upright = border.axis === "x";
  const count = upright ? COLUMNS : ROWS;
  const start = store.get("layout");
  const at = (event) => {
    const box = main.getBoundingClientRect();
    return (upright ? (event.clientX - box.left) / box.width : (event.clientY - box.top) / box.height) * count;
  };
  const move = (to) => keepLayout(store, moveBorder(start, border, to));
  const element = h("div", {
    class: `splitter ${upright ? "upright" : "level"}`,
    role: "separator",
    tabindex: "0",
    "aria-label": "Border between panels",
    "aria-orientation": upright ? "vertical" : "horizontal",
    "aria-valuemin": "0",
    "aria-valuemax": String(count),
    "aria-valuenow": String(border.at),
    "data-border": `${border.axis}${Math.min(...border.before)}`,
    style: barStyle(border, upright),
    onpointerdown: (event) => {
      element.setPointerCapture(event.pointerId);
      element.classList.add("dragged");
    },
    onpointermove: (event) => {
      if (!element.hasPointerCapture(event.pointerId)) return;
      move(at(event));
      const line = linePosition(store.get("layout"), border, upright);
      element.style[upright ? "left" : "top"] = `${(line / count) * 100}%`;
    },
    onlostpointercapture: () => {
      element.classList.remove("dragged");
      rebuild();
    },
    onkeydown: (event) => {
      const step = { ArrowLeft: -1, ArrowUp: -1, ArrowRight: 1, ArrowDown: 1 }[event.key];
      if (step === undefined) return;
      event.stopPropagation();
      event.preventDefault();
      move(border.at + step);
    },
  });
  return element;
}

function linePosition(layout, border, upright) {
  const area = layout[border.before[0]];
  return upright ? area.x + area.w : area.y + area.h;
}

function barStyle({ at, from, to }, upright) {
  const [count, cross] = upright ? [COLUMNS, ROWS] : [ROWS, COLUMNS];
  const line = `${(at / count) * 100}%`;
  const [start, length] = [`${(from / cross) * 100}%`, `${((to - from) / cross) * 100}%`];
  return upright ? { left: line, top: start, height: length } : { top: line, left: start, width: length };
}
