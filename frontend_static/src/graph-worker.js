/* The worker: heavy work on graphs, one call at a time, away from the page. */

import { buffersOf, decodeCompact, decodeLinks, joined } from "./compact.js";

self.addEventListener("message", ({ data: { id, parts, begun } }) => {
  try {
    const whole = joined(parts);
    const result = begun ? decodeLinks(whole, begun) : decodeCompact(whole);
    self.postMessage({ id, result }, result ? buffersOf(result) : []);
  } catch (error) {
    self.postMessage({ id, error: String(error.message) });
  }
});
