/* The visible part of the subgraph's drawing: all of it until the user zooms or pans. */

import { select, zoom, zoomIdentity } from "../../vendor/d3.js";

const ROOM = 6;
const LARGEST = 1.5;

/** Moves and scales `drawing` inside `plot`. The gestures are d3's: wheel and pinch zoom, a drag beside the boxes pans, a double click shows all. */
export function createView(plot, drawing) {
  let [own, held] = [false, false];
  const behaviour = zoom()
    .touchable(true)
    .scaleExtent([0.05, 4])
    .filter((event) => !event.button && !(event.target.closest(".box, button, input, .flow-line") && event.type !== "wheel"))
    .on("zoom", ({ transform, sourceEvent }) => {
      own = own || Boolean(sourceEvent);
      drawing.style.transform = `translate(${transform.x}px, ${transform.y}px) scale(${transform.k})`;
      plot.dataset.zoom = transform.k.toFixed(3);
    });
  const target = select(plot).call(behaviour).on("dblclick.zoom", null);
  const change = (event) => behaviour.scaleBy(target, event.detail);
  plot.addEventListener("dblclick", (event) => event.target.closest(".box") || plot.dispatchEvent(new CustomEvent("fit")));
  plot.addEventListener("scale", change);

  const transform = () => plot.__zoom ?? zoomIdentity;

  /** Shows all of a drawing of this size in the middle, unless somebody looks at a part of it. */
  function fit({ width, height }, always = false) {
    if (always) own = false;
    const keep = own || held;
    held = false;
    if (keep || plot.clientWidth === 0) return;
    const [w, h] = [plot.clientWidth, plot.clientHeight];
    const scale = Math.min(LARGEST, (w - 2 * ROOM) / width, (h - 2 * ROOM) / height);
    behaviour.transform(target, zoomIdentity.translate((w - scale * width) / 2, (h - scale * height) / 2).scale(scale));
  }

  /** Brings a place into sight that keys have gone to. */
  function show({ x, y }) {
    const [px, py] = transform().apply([x, y]);
    if (px < 0 || py < 0 || px > plot.clientWidth || py > plot.clientHeight) behaviour.translateTo(target, x, y);
  }

  return {
    fit,
    show,
    scale: () => transform().k,
    /** The size of the panel in the drawing's pixels at this scale, or null while it isn't shown. */
    panel: (scale) => (plot.clientWidth ? { width: plot.clientWidth / scale, height: plot.clientHeight / scale } : null),
    /** The next `fit` leaves the view as it is: somebody has just put a box where it is wanted. */
    hold: () => (held = true),
    /** Moves the drawing, by its own lengths. */
    moveBy: (dx, dy) => behaviour.translateBy(target, dx, dy),
    forget: () => (own = false),
    dispose: () => target.on(".zoom", null),
  };
}
