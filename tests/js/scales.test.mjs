import assert from "node:assert/strict";
import { test } from "node:test";

import {
  activationColour,
  contrast,
  css,
  linear,
  mix,
  signedColour,
  strokeWidth,
  textOn,
  THEMES,
} from "../../frontend_static/src/scales.js";

test("linear maps ends to ends, also for an empty domain", () => {
  assert.equal(linear([0, 10], [5, 25])(5), 15);
  assert.equal(linear([3, 3], [1, 2])(3), 1);
});

test("strokes grow with the square root of the share and stay drawable", () => {
  assert.equal(strokeWidth(0.25, 4), 2);
  assert.equal(strokeWidth(-0.25, 4), 2);
  assert.equal(strokeWidth(5, 4), 4);
  assert.ok(strokeWidth(0) > 0);
});

test("sign decides the hue and strength the depth, in both themes", () => {
  for (const theme of Object.values(THEMES)) {
    const [r, g, b] = signedColour(0.4, theme);
    assert.ok(g > r && g > b, "green for positive");
    const [pr, pg, pb] = signedColour(-0.4, theme);
    assert.ok(pg < pr && pg < pb, "purple for negative");
    assert.deepEqual(signedColour(9, theme), signedColour(0.4, theme));
    assert.ok(
      contrast(signedColour(0.4, theme), theme.surface) > contrast(signedColour(0.02, theme), theme.surface),
    );
  }
});

test("strong links stand out from the surface at least 3 to 1", () => {
  for (const theme of Object.values(THEMES)) {
    for (const share of [-0.4, -0.25, 0.25, 0.4])
      assert.ok(contrast(signedColour(share, theme), theme.surface) >= 3);
  }
});

test("text over any activation reads at least 4.5 to 1", () => {
  for (const theme of Object.values(THEMES)) {
    for (let activation = 0; activation <= 10; activation += 0.25) {
      const colour = activationColour(activation, 0, 10, theme);
      assert.ok(contrast(colour, textOn(colour)) >= 4.5);
    }
  }
});

test("activations outside the range are clamped and an empty range does no harm", () => {
  const { light } = THEMES;
  assert.deepEqual(activationColour(99, 0, 1, light), activationColour(1, 0, 1, light));
  assert.ok(activationColour(1, 0, 0, light).every(Number.isFinite));
});

test("contrast knows black and white", () => {
  assert.equal(Math.round(contrast([0, 0, 0], [255, 255, 255])), 21);
  assert.equal(css(mix([0, 0, 0], [10, 20, 30], 0.5)), "rgb(5 10 15)");
});
