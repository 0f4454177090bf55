/* Brings a graph into the page: its compact form in two steps where the server has one, else its JSON. */

import { decodeRest, decodeWhole } from "./background.js";
import { bytesOf, decodeCompact, rawNodes } from "./compact.js";
import { graphFromCompact, graphWithLinks, parseGraph } from "./graph.js";

const FIRST_BYTES = 1 << 21;
/** As many links as the page can index while it waits for nothing else: the picture shows fewer. */
const FIRST_LINKS = 40_000;

/**
 * `{graph, params, etag}` of a graph. A large one is shown with its strongest links first: `onFirst` gets the same for those, and the
 * result has all of them, with the same nodes. `ahead` is what `readAhead` gave for the graph.
 */
export async function loadGraph(api, slug, onFirst = () => {}, ahead = null) {
  const first = await (ahead ?? readAhead(api, slug));
  if (first === null) {
    const { json, etag } = await api.readGraph(slug);
    return { graph: parseGraph(json), params: json.qParams, etag };
  }
  const { bytes, tag, decoded } = first;
  const begun = decoded && loaded(decoded);
  if (decoded?.complete) return begun;
  if (begun) onFirst(begun);
  if (begun && bytes.byteLength >= bytesOf(decoded)) return completed(begun, await decodeRest([bytes], decoded));
  const rest = await api.readCompact(slug, { from: bytes.byteLength, etag: tag });
  if (rest.start === 0) return loaded(await decodeWhole([rest.bytes]));
  if (begun) return completed(begun, await decodeRest([bytes, rest.bytes], decoded));
  return loaded(await decodeWhole([bytes, rest.bytes]));
}

/** The first bytes of a graph and what they say; null where there is no compact form that this page understands. Never rejects. */
export async function readAhead(api, slug) {
  if (!api.readCompact) return null;
  try {
    const { bytes, tag } = await api.readCompact(slug, { to: FIRST_BYTES });
    return { bytes, tag, decoded: decodeCompact(bytes, FIRST_LINKS) };
  } catch {
    return null;
  }
}

function loaded(decoded) {
  const graph = graphFromCompact({ header: decoded.header, raw: rawNodes(decoded), links: decoded.links });
  return { graph, params: decoded.header.qParams, etag: decoded.header.etag };
}

function completed(begun, links) {
  return { ...begun, graph: graphWithLinks(begun.graph, links) };
}
