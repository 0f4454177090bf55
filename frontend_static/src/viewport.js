/* What part of a drawing is seen: a frame on the page, a zoom across and one down, a shift. Pure. */

import { clamp } from "./scales.js";

const MAX_ZOOM = 30;

/**
 * A viewport that never shows anything beyond the drawing's borders.
 *
 * The frame is where the drawing goes, `{x, y, width, height}` in pixels; at zoom 1 it holds all of it. `project` takes a point
 * of the drawing to the page, `unproject` back.
 */
export function createViewport() {
  let frame = { x: 0, y: 0, width: 10, height: 10 };
  let [zoom, shift] = [[1, 1], [0, 0]];

  function show(nextZoom, nextShift) {
    zoom = nextZoom.map((value) => clamp(value, 1, MAX_ZOOM));
    shift = [frame.width, frame.height].map((length, axis) => clamp(nextShift[axis], length * (1 - zoom[axis]), 0));
  }

  return Object.freeze({
    frame: () => frame,
    /** Across and down. */
    zooms: () => zoom,
    project: (u, v) => [frame.x + u * zoom[0] + shift[0], frame.y + v * zoom[1] + shift[1]],
    unproject: (px, py) => [(px - frame.x - shift[0]) / zoom[0], (py - frame.y - shift[1]) / zoom[1]],
    setFrame(next) {
      frame = { ...next, width: Math.max(10, next.width), height: Math.max(10, next.height) };
      show(zoom, shift);
    },
    moveBy: (dx, dy) => show(zoom, [shift[0] + dx, shift[1] + dy]),
    /** Zooms by a factor, across alone if wanted; what is at this point of the page stays there. */
    zoomAt(px, py, factor, across = false) {
      const real = [factor, across ? 1 : factor].map((wish, axis) => clamp(zoom[axis] * wish, 1, MAX_ZOOM) / zoom[axis]);
      const at = [px - frame.x, py - frame.y];
      const next = shift.map((value, axis) => at[axis] - (at[axis] - value) * real[axis]);
      show(zoom.map((value, axis) => value * real[axis]), next);
    },
    reset: () => show([1, 1], [0, 0]),
  });
}
