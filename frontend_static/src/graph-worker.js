/* The worker: heavy work on graphs, one call at a time, away from the page. */

import { buffersOf, decodeCompact } from "./compact.js";

self.addEventListener("message", ({ data: { id, buffer } }) => {
  try {
    const result = decodeCompact(buffer);
    self.postMessage({ id, result }, result ? buffersOf(result) : []);
  } catch (error) {
    self.postMessage({ id, error: String(error.message) });
  }
});
