/* The compact binary form of a graph (server/compact.py): its first part is enough for a picture of the strongest links. Pure. */

import { indexLinks } from "./links.js";

const MAGIC = 0x4247_5443;
const VERSION = 1;
const START = 16;
const COLUMNS = ["feature", "ctx_idx", "token_prob", "influence", "activation"];
const EDGE_BYTES = 12;

/**
 * `{header, columns, links, complete, edgesAt, edgeCount}` of a compact graph or of its first bytes, with at most `most` links; null if too few
 * bytes are there. Throws on anything else than this form.
 */
export function decodeCompact(buffer, most = Infinity) {
  if (buffer.byteLength < START) return null;
  const view = new DataView(buffer);
  if (view.getUint32(0, true) !== MAGIC || view.getUint32(4, true) !== VERSION) throw new Error("not a compact graph");
  const [headerBytes, edgeCount] = [view.getUint32(8, true), view.getUint32(12, true)];
  const columnsAt = START + headerBytes;
  if (buffer.byteLength < columnsAt) return null;
  const header = JSON.parse(new TextDecoder().decode(new Uint8Array(buffer, START, headerBytes)));
  const count = header.ids.length;
  const edgesAt = columnsAt + 8 * count * (COLUMNS.length + 1);
  if (buffer.byteLength < edgesAt) return null;
  const column = (i) => new Float64Array(buffer.slice(columnsAt + 8 * count * i, columnsAt + 8 * count * (i + 1)));
  const columns = Object.fromEntries(COLUMNS.map((name, i) => [name, column(i)]));
  const present = Math.min(edgeCount, most, Math.floor((buffer.byteLength - edgesAt) / EDGE_BYTES));
  const links = indexLinks(...edges(buffer, edgesAt, present), count, column(COLUMNS.length));
  return { header, columns, links, complete: present === edgeCount, edgesAt, edgeCount };
}

/** How many bytes the compact form has of which some were decoded. */
export function bytesOf({ edgesAt, edgeCount }) {
  return edgesAt + EDGE_BYTES * edgeCount;
}

/** All links of a compact graph of which the beginning was decoded before; `sums` are the absolute inputs that came with that. */
export function decodeLinks(buffer, { edgesAt, edgeCount, sums }) {
  return indexLinks(...edges(buffer, edgesAt, edgeCount), sums.length, sums);
}

/** The parts of one file in one buffer. */
export function joined(parts) {
  if (parts.length === 1) return parts[0];
  const whole = new Uint8Array(parts.reduce((sum, part) => sum + part.byteLength, 0));
  let at = 0;
  for (const part of parts) {
    whole.set(new Uint8Array(part), at);
    at += part.byteLength;
  }
  return whole.buffer;
}

/** Columns of the interleaved records. */
function edges(buffer, start, count) {
  const whole = new Int32Array(buffer, start, count * 3);
  const weights = new Float32Array(buffer, start, count * 3);
  const [source, target, weight] = [new Int32Array(count), new Int32Array(count), new Float32Array(count)];
  for (let k = 0; k < count; k += 1) {
    source[k] = whole[3 * k];
    target[k] = whole[3 * k + 1];
    weight[k] = weights[3 * k + 2];
  }
  return [source, target, weight];
}

/** The nodes as a JSON file would hold them, as far as the viewer reads them. */
export function rawNodes({ header, columns }) {
  const value = (column, i) => (Number.isNaN(column[i]) ? null : column[i]);
  return header.ids.map((id, i) => ({
    node_id: id,
    feature_type: header.types[header.type[i]],
    layer: header.layer[i],
    clerp: header.clerp[i] ?? "",
    proposed_label: header.proposed_label?.[i] ?? null,
    feature: value(columns.feature, i),
    ctx_idx: value(columns.ctx_idx, i),
    token_prob: value(columns.token_prob, i),
    influence: value(columns.influence, i),
    activation: value(columns.activation, i),
    merged: header.merged?.[i] ?? null,
    diff: header.diff?.[i] ?? null,
  }));
}

/** The buffers behind a decoded graph or its links, to hand them to another thread. */
export function buffersOf(decoded) {
  const values = [decoded, decoded.columns ?? {}, decoded.links ?? {}].flatMap(Object.values);
  return [...new Set(values.filter(ArrayBuffer.isView).map((array) => array.buffer))];
}
