/* Decodes graphs in a worker, or here if there is none (a page from disk) or it isn't worth it. */

import { decodeCompact, decodeLinks, joined } from "./compact.js";

const SMALL = 1 << 18;

let worker = null;
let calls = 0;
const waiting = new Map();

/** What `decodeCompact` gives of a file in parts. The buffers are gone afterwards. */
export const decodeWhole = (parts) => decode(parts, null);

/** What `decodeLinks` gives. The buffers are gone afterwards. */
export const decodeRest = (parts, { edgesAt, edgeCount, links }) =>
  decode(parts, { edgesAt, edgeCount, sums: links.inputAbsSum });

async function decode(parts, begun) {
  const size = parts.reduce((sum, part) => sum + part.byteLength, 0);
  if (size < SMALL || !start()) return begun ? decodeLinks(joined(parts), begun) : decodeCompact(joined(parts));
  calls += 1;
  const id = calls;
  return new Promise((resolve, reject) => {
    waiting.set(id, { resolve, reject });
    worker.postMessage({ id, parts, begun }, parts);
  });
}

function start() {
  if (worker) return true;
  try {
    worker = new Worker(new URL("./graph-worker.js", import.meta.url), { type: "module" });
  } catch {
    return false;
  }
  worker.addEventListener("message", ({ data: { id, result, error } }) => {
    const { resolve, reject } = waiting.get(id);
    waiting.delete(id);
    if (error === undefined) resolve(result);
    else reject(new Error(error));
  });
  worker.addEventListener("error", () => {
    for (const { reject } of waiting.values()) reject(new Error("the worker failed"));
    waiting.clear();
    worker = null;
  });
  return true;
}
