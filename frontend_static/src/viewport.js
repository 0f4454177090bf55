/* What part of a drawing is seen: a frame on the page, a zoom, a shift. Pure. */

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
  let [zoom, x, y] = [1, 0, 0];

  function show(nextZoom, nextX, nextY) {
    zoom = clamp(nextZoom, 1, MAX_ZOOM);
    x = clamp(nextX, frame.width * (1 - zoom), 0);
    y = clamp(nextY, frame.height * (1 - zoom), 0);
  }

  return Object.freeze({
    frame: () => frame,
    zoom: () => zoom,
    project: (u, v) => [frame.x + u * zoom + x, frame.y + v * zoom + y],
    unproject: (px, py) => [(px - frame.x - x) / zoom, (py - frame.y - y) / zoom],
    setFrame(next) {
      frame = { ...next, width: Math.max(10, next.width), height: Math.max(10, next.height) };
      show(zoom, x, y);
    },
    moveBy: (dx, dy) => show(zoom, x + dx, y + dy),
    /** Zooms by a factor; what is at this point of the page stays there. */
    zoomAt(px, py, factor) {
      const real = clamp(zoom * factor, 1, MAX_ZOOM) / zoom;
      const [ax, ay] = [px - frame.x, py - frame.y];
      show(zoom * real, ax - (ax - x) * real, ay - (ay - y) * real);
    },
    reset: () => show(1, 0, 0),
  });
}
