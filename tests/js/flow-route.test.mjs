import assert from "node:assert/strict";
import { test } from "node:test";

import { flowCurves } from "../../frontend_static/src/flow-route.js";

const EXTENT = { width: 120, height: 50 };
const points = (curve) => [...curve.matchAll(/(-?[\d.]+),(-?[\d.]+)/g)].map(([, x, y]) => [Number(x), Number(y)]);

function inside(curve, box) {
  const [a, b, c, d] = points(curve);
  return Array.from({ length: 99 }, (_, i) => (i + 1) / 100).some((t) => {
    const at = (k) => (1 - t) ** 3 * a[k] + 3 * t * (1 - t) ** 2 * b[k] + 3 * t ** 2 * (1 - t) * c[k] + t ** 3 * d[k];
    return Math.abs(at(0) - box.x) < EXTENT.width / 2 && Math.abs(at(1) - box.y) < EXTENT.height / 2;
  });
}

test("a flow that nothing stands in the way of runs straight up", () => {
  const places = [{ x: 300, y: 400 }, { x: 300, y: 50 }];
  const [curve] = flowCurves([{ from: 0, to: 1 }], places, EXTENT, 800);
  assert.deepEqual(points(curve).map(([x]) => x), [300, 300, 300, 300]);
  assert.deepEqual(points(curve)[0], [300, 375]);
  assert.deepEqual(points(curve)[3], [300, 75]);
});

test("a flow past another box goes around it, and the flows of that box stay", () => {
  const places = [{ x: 300, y: 400 }, { x: 300, y: 50 }, { x: 300, y: 225 }];
  const [past, below] = flowCurves([{ from: 0, to: 1 }, { from: 0, to: 2 }], places, EXTENT, 800);
  assert.equal(inside(past, places[2]), false);
  assert.deepEqual(points(below).map(([x]) => x), [300, 300, 300, 300]);
});

test("at the drawing's edge it goes around on the other side", () => {
  const places = [{ x: 70, y: 400 }, { x: 70, y: 50 }, { x: 70, y: 225 }];
  const [left] = flowCurves([{ from: 0, to: 1 }], places, EXTENT, 800);
  assert.ok(points(left)[1][0] > 70);
  const [right] = flowCurves([{ from: 0, to: 1 }], places.map(({ y }) => ({ x: 730, y })), EXTENT, 800);
  assert.ok(points(right)[1][0] < 730);
});
