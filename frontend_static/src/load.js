/* Brings a graph into the page: its compact form in two steps where the server has one, else its JSON. */

import { decode } from "./background.js";
import { rawNodes } from "./compact.js";
import { graphFromCompact, parseGraph } from "./graph.js";

const FIRST_BYTES = 1 << 21;

/**
 * `{graph, params, etag}` of a graph. A large one is shown with its strongest links first: `onFirst` gets the same for those, and the
 * result has all of them.
 */
export async function loadGraph(api, slug, onFirst = () => {}) {
  const first = await firstPart(api, slug);
  if (first === null) {
    const { json, etag } = await api.readGraph(slug);
    return { graph: parseGraph(json), params: json.qParams, etag };
  }
  if (first.decoded?.complete) return loaded(first.decoded);
  if (first.decoded) onFirst(loaded(first.decoded));
  const rest = await api.readCompact(slug, { from: first.bytes.byteLength, etag: first.tag });
  const whole = rest.start === 0 ? rest.bytes : joined(first.bytes, rest.bytes);
  return loaded(await decode(whole));
}

/** The first bytes and what they say; null where there is no compact form that this page understands. */
async function firstPart(api, slug) {
  if (!api.readCompact) return null;
  try {
    const { bytes, tag } = await api.readCompact(slug, { to: FIRST_BYTES });
    return { bytes, tag, decoded: await decode(bytes.slice(0)) };
  } catch {
    return null;
  }
}

function loaded(decoded) {
  const graph = graphFromCompact({ header: decoded.header, raw: rawNodes(decoded), links: decoded.links });
  return { graph, params: decoded.header.qParams, etag: decoded.header.etag };
}

function joined(a, b) {
  const whole = new Uint8Array(a.byteLength + b.byteLength);
  whole.set(new Uint8Array(a));
  whole.set(new Uint8Array(b), a.byteLength);
  return whole.buffer;
}
