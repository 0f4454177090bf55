/* Links as parallel typed arrays, indexed by both ends. Pure; it runs in the page and in a worker. */

/**
 * The links of `nodeCount` nodes with their indexes.
 *
 * `byTarget` and `bySource` hold link numbers, bucketed by end (`targetStart`, `sourceStart`), strongest share first; `strongest` holds all
 * of them. `inputAbsSum` is the sum of absolute weights into each node; where only the strongest links of a graph are here, the sums of
 * all of them are handed in.
 */
export function indexLinks(source, target, weight, nodeCount, sums = null) {
  const inputAbsSum = sums ?? absoluteInputs(target, weight, nodeCount);
  const share = new Float32Array(weight.length);
  for (let k = 0; k < weight.length; k += 1) share[k] = weight[k] / (inputAbsSum[target[k]] || 1);
  const strongest = byMagnitude(share);
  const [byTarget, targetStart] = bucket(strongest, target, nodeCount);
  const [bySource, sourceStart] = bucket(strongest, source, nodeCount);
  return {
    count: weight.length,
    source,
    target,
    weight,
    share,
    inputAbsSum,
    strongest,
    byTarget,
    targetStart,
    bySource,
    sourceStart,
  };
}

function absoluteInputs(target, weight, nodeCount) {
  const sums = new Float64Array(nodeCount);
  for (let k = 0; k < weight.length; k += 1) sums[target[k]] += Math.abs(weight[k]);
  return sums;
}

/** Places by descending absolute value, the earlier one of equals first: a radix sort, since a million comparisons would be felt. */
export function byMagnitude(values) {
  const bits = new Uint32Array(Float32Array.from(values).buffer);
  let order = Uint32Array.from(bits.keys());
  let sorted = new Uint32Array(bits.length);
  for (const shift of [0, 16]) {
    const next = new Uint32Array(65_537);
    for (let i = 0; i < bits.length; i += 1) next[key(bits[i], shift) + 1] += 1;
    for (let i = 0; i < 65_536; i += 1) next[i + 1] += next[i];
    for (let i = 0; i < order.length; i += 1) {
      const at = key(bits[order[i]], shift);
      sorted[next[at]] = order[i];
      next[at] += 1;
    }
    [order, sorted] = [sorted, order];
  }
  return order;
}

/** Half of a float's bits without its sign, the larger the value the smaller. */
function key(bits, shift) {
  return 65_535 - (((bits & 0x7fff_ffff) >>> shift) & 65_535);
}

/** Stable counting sort of the link numbers in `order` by the node that `end` gives: the numbers, and where each node's begin. */
export function bucket(order, end, nodeCount) {
  const start = new Uint32Array(nodeCount + 1);
  for (let i = 0; i < order.length; i += 1) start[end[order[i]] + 1] += 1;
  for (let i = 0; i < nodeCount; i += 1) start[i + 1] += start[i];
  const next = start.slice(0, nodeCount);
  const sorted = new Uint32Array(order.length);
  for (let i = 0; i < order.length; i += 1) {
    const node = end[order[i]];
    sorted[next[node]] = order[i];
    next[node] += 1;
  }
  return [sorted, start];
}
