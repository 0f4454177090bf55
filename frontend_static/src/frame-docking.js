/* Panels dragged by head or tab: a preview shows where one would go, letting go puts it there, Escape keeps all as it was. */

import { h } from "./dom.js";
import { COLUMNS, ROWS, place } from "./grid.js";

const SLACK = 6;
const EDGE = 0.26;

/** `draggable(element, names)` makes an element move panels; `keep(layout)` gets the new layout. */
export function useDocking(main, store, keep) {
  const preview = h("div", { class: "dock-preview", hidden: true, "aria-hidden": "true" });
  main.append(preview);

  function draggable(element, names) {
    let press = null;
    const end = () => {
      if (press?.cancel) document.removeEventListener("keydown", press.cancel, true);
      preview.hidden = true;
      document.body.classList.remove("docking");
      press = null;
    };
    element.addEventListener("pointerdown", (event) => {
      const inner = event.target.closest("button, input, select, a, label");
      if (event.button !== 0 || (inner && inner !== element)) return;
      event.stopPropagation();
      element.setPointerCapture(event.pointerId);
      press = { x: event.clientX, y: event.clientY, id: event.pointerId, drop: null };
    });
    element.addEventListener("pointermove", (event) => {
      if (!press || event.pointerId !== press.id) return;
      if (!press.cancel) {
        if (Math.hypot(event.clientX - press.x, event.clientY - press.y) < SLACK) return;
        document.body.classList.add("docking");
        press.cancel = (key) => {
          if (key.key !== "Escape") return;
          key.stopPropagation();
          end();
        };
        document.addEventListener("keydown", press.cancel, true);
      }
      press.drop = dropAt(main, store, names, event);
      showPreview(preview, store.get("layout"), names, press.drop);
    });
    element.addEventListener("pointerup", () => {
      const [moved, drop] = [press?.cancel, press?.drop];
      end();
      if (moved) swallowClick(element);
      if (moved && drop) keep(place(store.get("layout"), names, drop.target, drop.zone));
    });
    element.addEventListener("pointercancel", end);
    return element;
  }

  return Object.freeze({ draggable });
}

/** The click that ends a drag isn't meant as one. */
function swallowClick(element) {
  const stop = (event) => event.stopImmediatePropagation();
  element.addEventListener("click", stop, { capture: true, once: true });
  window.setTimeout(() => element.removeEventListener("click", stop, { capture: true }), 0);
}

/** `{target, zone}` under the pointer, or null where nothing would change. */
function dropAt(main, store, names, event) {
  const box = main.getBoundingClientRect();
  const x = ((event.clientX - box.left) / box.width) * COLUMNS;
  const y = ((event.clientY - box.top) / box.height) * ROWS;
  const layout = store.get("layout");
  const target = layout.findIndex((a) => x >= a.x && x < a.x + a.w && y >= a.y && y < a.y + a.h);
  if (target < 0) return null;
  const area = layout[target];
  const zone = zoneAt((x - area.x) / area.w, (y - area.y) / area.h, ((y - area.y) / ROWS) * box.height);
  return place(layout, names, target, zone) ? { target, zone } : null;
}

/** The head of an area means its tabs, an edge that half, the middle a change of places. */
function zoneAt(u, v, pixelsDown) {
  if (pixelsDown < 44) return "tabs";
  const edges = { left: u, right: 1 - u, top: v, bottom: 1 - v };
  const [zone, distance] = Object.entries(edges).sort((a, b) => a[1] - b[1])[0];
  return distance < EDGE ? zone : "swap";
}

function showPreview(preview, layout, names, drop) {
  preview.hidden = drop === null;
  if (!drop) return;
  const area = layout[drop.target];
  const half = { left: [0, 0, 0.5, 1], right: [0.5, 0, 0.5, 1], top: [0, 0, 1, 0.5], bottom: [0, 0.5, 1, 0.5] };
  const [dx, dy, w, h] = half[drop.zone] ?? [0, 0, 1, 1];
  preview.dataset.zone = drop.zone;
  preview.style.left = `${((area.x + dx * area.w) / COLUMNS) * 100}%`;
  preview.style.top = `${((area.y + dy * area.h) / ROWS) * 100}%`;
  preview.style.width = `${((w * area.w) / COLUMNS) * 100}%`;
  preview.style.height = `${((h * area.h) / ROWS) * 100}%`;
}
