/* A node's own share of all influence, out of the cumulative scores that graph files hold. Pure. */

const ROUNDING = 1e-6;

/**
 * For each node `{share, atMost}`, null where there is no score. A score is the share of all influence held by the nodes up to this one, the
 * most influential first, so that a node's own share is the step from the one before it. Where the file leaves nodes out the share is a bound:
 * `atMost` where that shows as a step larger than the one before. Left-out nodes in a smaller step can't be seen.
 */
export function ownShares(cumulative) {
  const order = [...cumulative.keys()].filter((i) => cumulative[i] !== null);
  order.sort((a, b) => cumulative[a] - cumulative[b] || a - b);
  const shares = cumulative.map(() => null);
  let [before, least] = [0, Infinity];
  for (const i of order) {
    const step = Math.max(0, cumulative[i] - before);
    const atMost = step > least + ROUNDING;
    const share = atMost ? Math.min(least, step / 2) : Math.min(least, step);
    shares[i] = Object.freeze({ share, atMost });
    before = cumulative[i];
    if (share > ROUNDING) least = share;
  }
  return shares;
}
