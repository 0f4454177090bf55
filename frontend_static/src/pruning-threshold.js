/* The score that the largest scores holding a share of the total stay above, found without sorting. Pure. */

const HIGH = 1 << 15; // a score's sign bit is never set
const LOW = 1 << 16;

/**
 * The smallest of the float32 `scores` to keep so that all at least as large hold the share `threshold` of their sum: with 0 the largest,
 * with 1 the smallest above zero. Infinity if none is above zero.
 *
 * For floats above zero the order of their bits is the order of their values: a histogram over the upper half of the bits finds the bin,
 * a second over the lower half the very value.
 */
export function leastKept(scores, threshold) {
  const bits = new Uint32Array(scores.buffer, scores.byteOffset, scores.length);
  const coarse = new Float64Array(HIGH);
  for (let k = 0; k < bits.length; k += 1) coarse[bits[k] >>> 16] += scores[k];
  const total = coarse.reduce((sum, value) => sum + value, 0);
  if (!(total > 0)) return Infinity;
  const high = firstReaching(coarse, 0, threshold, total);
  const fine = new Float64Array(LOW);
  for (let k = 0; k < bits.length; k += 1) if (bits[k] >>> 16 === high.bin) fine[bits[k] & (LOW - 1)] += scores[k];
  const low = firstReaching(fine, high.above, threshold, total);
  return new Float32Array(Uint32Array.of(high.bin * LOW + low.bin).buffer)[0];
}

/** The highest bin at which the share is reached, else the lowest that isn't empty, and the sum above it. */
function firstReaching(sums, before, threshold, total) {
  let sum = before;
  let lowest = { bin: 0, above: before };
  for (let bin = sums.length - 1; bin >= 0; bin -= 1) {
    if (sums[bin] === 0) continue;
    lowest = { bin, above: sum };
    sum += sums[bin];
    if (threshold < 1 && sum / total >= threshold) break;
  }
  return lowest;
}
