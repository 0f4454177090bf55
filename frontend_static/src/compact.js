/* The compact binary form of a graph (server/compact.py): its first part is enough for a picture of the strongest links. Pure. */

import { indexLinks } from "./links.js";

const MAGIC = 0x4247_5443;
const VERSION = 1;
const START = 16;
const COLUMNS = ["feature", "ctx_idx", "token_prob", "influence", "activation"];
const EDGE_BYTES = 12;

/**
 * `{header, columns, links, complete}` of a compact graph or of its first bytes; null if too few of them are there. Throws on anything
 * else than this form.
 */
export function decodeCompact(buffer) {
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
  const present = Math.min(edgeCount, Math.floor((buffer.byteLength - edgesAt) / EDGE_BYTES));
  const links = indexLinks(...edges(buffer, edgesAt, present), count, column(COLUMNS.length));
  return { header, columns, links, complete: present === edgeCount };
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
  const value = (name, i) => (Number.isNaN(columns[name][i]) ? null : columns[name][i]);
  return header.ids.map((id, i) => ({
    node_id: id,
    feature_type: header.types[header.type[i]],
    layer: header.layer[i],
    clerp: header.clerp[i] ?? "",
    ...Object.fromEntries(COLUMNS.map((name) => [name, value(name, i)])),
  }));
}

/** The buffers behind a decoded graph, to hand them to another thread. */
export function buffersOf({ columns, links }) {
  const arrays = [...Object.values(columns), ...Object.values(links)].filter(ArrayBuffer.isView);
  return [...new Set(arrays.map((array) => array.buffer))];
}
