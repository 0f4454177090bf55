import assert from "node:assert/strict";
import { test } from "node:test";

import { createViewport } from "../../frontend_static/src/viewport.js";

const FRAME = { x: 50, y: 20, width: 400, height: 200 };
const close = (a, b) => a.forEach((value, i) => assert.ok(Math.abs(value - b[i]) < 1e-6, `${a} is not ${b}`));

test("project and unproject are inverse at any zoom", () => {
  const viewport = createViewport();
  viewport.setFrame(FRAME);
  assert.deepEqual(viewport.project(0, 0), [50, 20]);
  for (const factor of [1, 3, 1.7]) {
    viewport.zoomAt(200, 100, factor);
    viewport.moveBy(-13, 7);
    close(viewport.project(...viewport.unproject(123, 77)), [123, 77]);
  }
});

test("what is under the pointer stays there while zooming", () => {
  const viewport = createViewport();
  viewport.setFrame(FRAME);
  const point = viewport.unproject(300, 150);
  viewport.zoomAt(300, 150, 4);
  close(viewport.project(...point), [300, 150]);
});

test("nothing beyond the drawing comes into view, and zoom stays within limits", () => {
  const viewport = createViewport();
  viewport.setFrame(FRAME);
  viewport.zoomAt(60, 30, 1e9);
  assert.equal(viewport.zooms()[0], 30);
  viewport.moveBy(1e6, -1e6);
  close(viewport.project(0, 200), [50, 220]);
  viewport.zoomAt(60, 30, 0);
  assert.equal(viewport.zooms()[0], 1);
  close(viewport.project(0, 0), [50, 20]);
  viewport.setFrame({ x: 0, y: 0, width: -5, height: Number.MIN_VALUE });
  assert.equal(viewport.frame().width, 10);
});

test("reset shows all", () => {
  const viewport = createViewport();
  viewport.setFrame(FRAME);
  viewport.zoomAt(60, 30, 5);
  viewport.reset();
  assert.deepEqual([viewport.zooms()[0], viewport.project(400, 200)], [1, [450, 220]]);
});

test("across alone, layers keep their height", () => {
  const viewport = createViewport();
  viewport.setFrame(FRAME);
  const point = viewport.unproject(300, 150);
  viewport.zoomAt(300, 150, 4, true);
  assert.deepEqual(viewport.zooms(), [4, 1]);
  close(viewport.project(...point), [300, 150]);
  close(viewport.project(0, 30), [viewport.project(0, 0)[0], FRAME.y + 30]);
});
