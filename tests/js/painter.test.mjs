import assert from "node:assert/strict";
import { test } from "node:test";

import { createPace } from "../../frontend_static/src/panels/link-graph-painter.js";

/** The level of a movement whose frames are this many milliseconds apart, and the end of it. */
function mover() {
  let time = 0;
  const pace = createPace(() => time);
  return (gap, frames = 20) => {
    let level = null;
    for (let i = 0; i < frames; i += 1) {
      time += gap;
      level = pace.moved();
    }
    pace.rested();
    time += 5000;
    return level;
  };
}

test("after a fluid movement all links are drawn in the next, after a stuttering one fewer, step by step", () => {
  const move = mover();
  assert.deepEqual([move(16), move(16), move(30), move(80), move(80), move(80), move(30), move(16), move(16)], [
    1, 0, 0, 0, 1, 2, 2, 2, 1,
  ]);
});

test("a short movement and single long frames judge nothing", () => {
  const move = mover();
  assert.deepEqual([move(200, 5), move(5, 5), move(30)], [1, 1, 1]);
  let time = 0;
  const pace = createPace(() => time);
  for (let i = 0; i < 20; i += 1) {
    time += i % 5 === 0 ? 400 : 30;
    assert.equal(pace.moved(), 1);
  }
  pace.rested();
  assert.equal(pace.moved(), 1);
});
