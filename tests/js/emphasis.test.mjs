import assert from "node:assert/strict";
import { test } from "node:test";

import { emphasis, linkLook } from "../../frontend_static/src/panels/link-graph-draw.js";
import { THEMES } from "../../frontend_static/src/scales.js";

test("of hundreds of links the strongest stand out, however small their shares", () => {
  const shares = Array.from({ length: 482 }, (_, i) => 0.04 / (i + 1));
  const looks = shares.map((share) => linkLook(share, { focus: true, strongest: shares[0] }, THEMES.light));
  assert.ok(looks[0].alpha > 0.9 && looks[0].width > 4);
  assert.ok(looks[9].alpha > 2 * looks[100].alpha && looks[9].width > 1.15 * looks[100].width);
  assert.ok(looks.every(({ alpha }, i) => i === 0 || alpha <= looks[i - 1].alpha));
  assert.notDeepEqual(looks[0].colour, looks[481].colour);
});

test("strength is even to the eye: a quarter of the share is half as strong", () => {
  assert.equal(emphasis(0.1, 0.4), 0.5);
  assert.equal(emphasis(-0.4, 0.4), 1);
  assert.equal(emphasis(9, 0.4), 1);
});

test("without a selection links stay in the background", () => {
  assert.ok(linkLook(0.4, { focus: false, strongest: 0.4 }, THEMES.light).alpha < 0.4);
});
