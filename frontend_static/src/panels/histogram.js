/* How often a feature has which activation, with the present one marked. */

import { h, svg } from "../dom.js";
import { number } from "../format.js";
import { clamp } from "../scales.js";

const [WIDTH, HEIGHT] = [240, 56];

/** Null when the record has no histogram. */
export function histogram({ histogram: bins, act_min: low = 0, act_max: high }, activation) {
  if (!Array.isArray(bins) || bins.length === 0 || !Number.isFinite(high)) return null;
  const largest = Math.max(...bins) || 1;
  const step = WIDTH / bins.length;
  const bars = bins.map((count, i) => {
    const height = Math.sqrt(Math.max(0, count) / largest) * HEIGHT;
    return svg("rect", {
      x: i * step + 0.5,
      y: HEIGHT - height,
      width: Math.max(0.5, step - 1),
      height,
      class: "bin",
    });
  });
  const at = clamp(((activation ?? low) - low) / (high - low || 1), 0, 1) * (WIDTH - 2) + 1;
  const marker =
    activation === null ? [] : [svg("line", { x1: at, x2: at, y1: 0, y2: HEIGHT, class: "marker" })];
  const title = "Activations, square-root scale; the line is this node's";
  return h(
    "figure",
    { class: "histogram", title },
    svg(
      "svg",
      { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, preserveAspectRatio: "none", role: "img", "aria-label": title },
      ...bars,
      ...marker,
    ),
    h("figcaption", { class: "muted" }, h("span", {}, number(low)), h("span", {}, number(high))),
  );
}
