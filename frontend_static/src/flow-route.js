/* The lines between boxes of the subgraph, led around boxes that they have nothing to do with. Pure. */

const SAMPLES = 16;
const MARGIN = 5;
const DETOURS = [0, 0.8, -0.8, 1.2, -1.2, 1.8, -1.8, 2.6, -2.6];
const MOST_CHECKS = 40_000;

/**
 * The curve of every flow `{from, to}` as the text of an SVG path, in the order given. `extent` is a box's size, `width` the drawing's: a curve
 * that would cross other boxes swings to the side where it crosses fewest, by as little as will do.
 */
export function flowCurves(flows, places, extent, width) {
  const tooMany = flows.length * places.length > MOST_CHECKS;
  return flows.map(({ from, to }) => {
    const others = tooMany ? [] : places.filter((_, i) => i !== from && i !== to);
    return textOf(route(places[from], places[to], others, extent, width));
  });
}

function route(source, target, others, extent, width) {
  let best = null;
  for (const detour of DETOURS) {
    const curve = curveOf(source, target, extent, detour * extent.width);
    const crossed = crossings(curve, others, extent, width);
    if (best === null || crossed < best.crossed) best = { curve, crossed };
    if (crossed === 0) break;
  }
  return best.curve;
}

/** From one box's upper or lower edge to another's, as the four points of a cubic. */
function curveOf(source, target, { height }, aside) {
  const side = target.y <= source.y ? -1 : 1;
  const [y0, y1] = [source.y + (side * height) / 2, target.y - (side * height) / 2];
  const bend = side * Math.max(18, Math.abs(y0 - y1) * 0.45);
  return [
    [source.x, y0],
    [source.x + aside, y0 + bend],
    [target.x + aside, y1 - bend],
    [target.x, y1],
  ];
}

/** How many points of the curve lie in other boxes or outside the drawing. */
function crossings(curve, others, extent, width) {
  const [reachX, reachY] = [extent.width / 2 + MARGIN, extent.height / 2 + MARGIN];
  let count = 0;
  for (let i = 1; i < SAMPLES; i += 1) {
    const [x, y] = pointAt(curve, i / SAMPLES);
    const hidden = others.some((other) => Math.abs(x - other.x) < reachX && Math.abs(y - other.y) < reachY);
    if (hidden || x < MARGIN || x > width - MARGIN) count += 1;
  }
  return count;
}

function pointAt([a, b, c, d], t) {
  const weights = [(1 - t) ** 3, 3 * t * (1 - t) ** 2, 3 * t ** 2 * (1 - t), t ** 3];
  return [0, 1].map((axis) => weights[0] * a[axis] + weights[1] * b[axis] + weights[2] * c[axis] + weights[3] * d[axis]);
}

function textOf([a, b, c, d]) {
  return `M${a.join(",")} C${[b, c, d].map((point) => point.join(",")).join(" ")}`;
}
