import assert from "node:assert/strict";
import { test } from "node:test";

import { influenceTitle, ownInfluence } from "../../frontend_static/src/format.js";
import { ownShares } from "../../frontend_static/src/influence.js";

const near = (found, wanted) => {
  assert.equal(found.atMost, wanted.atMost);
  assert.ok(Math.abs(found.share - wanted.share) < 1e-12, `${found.share} isn't ${wanted.share}`);
};

test("a node's own share is the step from the next more influential one", () => {
  const shares = ownShares([0.404, null, 0.246, 0.5, 1, 1].map((value, i) => (i < 4 ? value : null)));
  near(shares[2], { share: 0.246, atMost: false });
  near(shares[0], { share: 0.158, atMost: false });
  near(shares[3], { share: 0.096, atMost: false });
  assert.equal(shares[1], null);
});

test("a step that is larger than the one before has other nodes in it, so that it is a bound", () => {
  const shares = ownShares([0.3, 0.5, 0.95, 0.97]);
  near(shares[2], { share: 0.2, atMost: true });
  near(shares[3], { share: 0.02, atMost: false });
  near(ownShares([0.3, 0.4, 0.55])[2], { share: 0.075, atMost: true });
});

test("left-out nodes in a smaller step can't be told: the share is still no less than the node's own", () => {
  const own = 0.1; // 0.3, then two of 0.1 each of which the file holds the second alone
  const [, second] = ownShares([0.3, 0.5]);
  near(second, { share: 0.2, atMost: false });
  assert.ok(second.share >= own);
});

test("nodes without influence have none", () => {
  near(ownShares([1, 0.6, 1])[2], { share: 0, atMost: false });
});

test("it reads as a percentage, and the cumulative score is named so", () => {
  assert.equal(ownInfluence({ ownInfluence: 0.158, influenceAtMost: false }), "15.8 %");
  assert.equal(ownInfluence({ ownInfluence: 0.003, influenceAtMost: true }), "≤ 0.3 %");
  assert.equal(ownInfluence({ ownInfluence: null }), "–");
  assert.match(influenceTitle({ influence: 0.404 }), /0\.404 \(cumulative influence\)/);
});
