/* The pointer on the link graph: hover, click, drag to move, wheel to zoom, double click to see all. */

import { click, hover, select } from "../actions.js";

const CLICK_SLACK = 4;
const WHEEL_SPEED = 0.0022;

/** `nodeAt(x, y)` gives the id of the node near a point of the plot; `redraw` follows a change of the viewport. */
export function useGraphPointer(plot, store, viewport, { nodeAt, redraw }) {
  let press = null;
  const listeners = {
    pointermove(event) {
      if (press && event.buttons & 1) press = drag(press, event);
      else if (!event.shiftKey) hover(store, nodeAt(...pointIn(plot, event)));
      plot.classList.toggle("over-node", store.get("hovered") !== null);
    },
    pointerdown(event) {
      if (event.button === 0) press = { x: event.clientX, y: event.clientY, moved: false };
    },
    pointerup(event) {
      const clicked = press !== null && !press.moved;
      press = null;
      if (!clicked) return;
      const id = nodeAt(...pointIn(plot, event));
      if (id) click(store, id, event);
      else select(store, null);
    },
    pointerleave: (event) => event.shiftKey || hover(store, null),
    dblclick() {
      viewport.reset();
      redraw();
    },
    wheel(event) {
      event.preventDefault();
      viewport.zoomAt(...pointIn(plot, event), Math.exp(-event.deltaY * WHEEL_SPEED));
      redraw();
    },
  };

  function drag(from, event) {
    const [dx, dy] = [event.clientX - from.x, event.clientY - from.y];
    if (!from.moved && Math.hypot(dx, dy) <= CLICK_SLACK) return from;
    viewport.moveBy(dx, dy);
    redraw();
    return { x: event.clientX, y: event.clientY, moved: true };
  }

  const entries = Object.entries(listeners);
  entries.forEach(([name, listener]) => plot.addEventListener(name, listener, { passive: name !== "wheel" }));
  return () => entries.forEach(([name, listener]) => plot.removeEventListener(name, listener));
}

function pointIn(element, event) {
  const box = element.getBoundingClientRect();
  return [event.clientX - box.left, event.clientY - box.top];
}
