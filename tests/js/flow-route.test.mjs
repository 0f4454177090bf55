import assert from "node:assert/strict";
import { test } from "node:test";

import { flowLines } from "../../frontend_static/src/flow-route.js";
import { BOX } from "../../frontend_static/src/subgraph-layout.js";

const points = (curve) => [...curve.matchAll(/(-?[\d.]+),(-?[\d.]+)/g)].map(([, x, y]) => [Number(x), Number(y)]);

/** Whether a line of cubics passes through a box. */
function inside(d, box) {
  const all = points(d);
  for (let k = 0; k + 3 < all.length; k += 3)
    for (let t = 0; t <= 1; t += 0.02) {
      const at = (i) => (1 - t) ** 3 * all[k][i] + 3 * t * (1 - t) ** 2 * all[k + 1][i] + 3 * t ** 2 * (1 - t) * all[k + 2][i] + t ** 3 * all[k + 3][i];
      if (Math.abs(at(0) - box.x) < BOX.width / 2 && Math.abs(at(1) - box.y) < BOX.height / 2) return true;
    }
  return false;
}

test("a flow that nothing stands in the way of runs straight up", () => {
  const places = [{ x: 300, y: 400 }, { x: 300, y: 50 }];
  const [{ d, middle }] = flowLines([{ from: 0, to: 1 }], places);
  assert.deepEqual(points(d).map(([x]) => x), [300, 300, 300, 300]);
  assert.deepEqual(points(d)[0], [300, 400 - BOX.height / 2]);
  assert.deepEqual(points(d)[3], [300, 50 + BOX.height / 2]);
  assert.deepEqual(middle, { x: 300, y: 225 });
});

test("a flow past another box goes around it", () => {
  const places = [{ x: 300, y: 400 }, { x: 300, y: 50 }, { x: 300, y: 225 }];
  const [past, below] = flowLines([{ from: 0, to: 1 }, { from: 0, to: 2 }], places);
  assert.equal(inside(past.d, places[2]), false);
  assert.equal(inside(below.d, places[1]), false);
});

test("between boxes beside each other the line goes over their tops", () => {
  const [{ d }] = flowLines([{ from: 0, to: 1 }], [{ x: 100, y: 100 }, { x: 300, y: 110 }]);
  assert.ok(points(d).every(([, y]) => y <= 110 - BOX.height / 2));
});

test("a line that the layout led passes near its points", () => {
  const places = [{ x: 100, y: 400 }, { x: 400, y: 50 }];
  const [{ d }] = flowLines([{ from: 0, to: 1 }], places, new Map([[0, [{ x: 240, y: 300 }, { x: 260, y: 200 }]]]));
  const all = points(d);
  assert.deepEqual(all.at(-1), [400, 50 + BOX.height / 2]);
  assert.ok(all.some(([x, y]) => Math.hypot(x - 240, y - 300) < 40) && all.some(([x, y]) => Math.hypot(x - 260, y - 200) < 40));
});
