/* The pointer on the link graph: hover and click; d3's gestures move and zoom, a double click shows all. */

import { click, hover, select } from "../actions.js";
import { select as element, zoom, zoomIdentity } from "../../vendor/d3.js";

const CLICK_SLACK = 4;
const WHEEL_SPEED = 0.0022 * Math.LOG2E;
const LINE = 16;
/** With more tokens the wheel zooms across alone, since it's tokens that have too little room. */
const MANY_TOKENS = 60;

/** `nodeAt(x, y)` gives the id of the node near a point of the plot; `redraw` follows a change of the viewport. */
export function useGraphPointer(plot, store, viewport, { nodeAt, redraw }) {
  let before = zoomIdentity;
  const across = (event) => Boolean(event?.shiftKey) !== (store.get("graph")?.tokens.length ?? 0) > MANY_TOKENS;
  const behaviour = zoom()
    .touchable(true)
    .clickDistance(CLICK_SLACK)
    .scaleExtent([1e-9, 1e9])
    .filter((event) => !event.button && (!event.ctrlKey || event.type === "wheel") && !event.target.closest("button"))
    .wheelDelta((event) => -(event.deltaY || event.deltaX) * (event.deltaMode === 1 ? LINE : 1) * WHEEL_SPEED)
    .on("zoom", ({ transform, sourceEvent }) => {
      const factor = transform.k / before.k;
      const [ox, oy] = [transform.x - factor * before.x, transform.y - factor * before.y];
      if (factor === 1) viewport.moveBy(ox, oy);
      else viewport.zoomAt(ox / (1 - factor), oy / (1 - factor), factor, across(sourceEvent));
      before = transform;
      redraw();
    });
  const target = element(plot).call(behaviour).on("dblclick.zoom", null);
  const listeners = {
    pointermove(event) {
      if (event.buttons & 1) return;
      if (!event.shiftKey) hover(store, nodeAt(...pointIn(plot, event)));
      plot.classList.toggle("over-node", store.get("hovered") !== null);
    },
    click(event) {
      if (event.target.closest("button")) return;
      const id = nodeAt(...pointIn(plot, event));
      if (id) click(store, id, event);
      else select(store, null);
    },
    pointerleave: (event) => event.shiftKey || hover(store, null),
    dblclick() {
      viewport.reset();
      redraw();
    },
  };
  const entries = Object.entries(listeners);
  entries.forEach(([name, listener]) => plot.addEventListener(name, listener));
  return () => {
    target.on(".zoom", null);
    entries.forEach(([name, listener]) => plot.removeEventListener(name, listener));
  };
}

function pointIn(plot, event) {
  const box = plot.getBoundingClientRect();
  return [event.clientX - box.left, event.clientY - box.top];
}
