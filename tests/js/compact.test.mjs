import assert from "node:assert/strict";
import { test } from "node:test";

import { graphJson } from "./builders.mjs";
import { buffersOf, bytesOf, decodeCompact, decodeLinks, joined, rawNodes } from "../../frontend_static/src/compact.js";
import { graphFromCompact, parseGraph } from "../../frontend_static/src/graph.js";
import { byMagnitude } from "../../frontend_static/src/links.js";
import { loadGraph, readAhead } from "../../frontend_static/src/load.js";

const COLUMNS = ["feature", "ctx_idx", "token_prob", "influence", "activation"];

/** The form that server/compact.py writes, with the links in the order given. */
function pack(json) {
  const graph = parseGraph(json);
  const types = [...new Set(json.nodes.map((node) => node.feature_type))];
  const header = {
    etag: '"json"',
    metadata: json.metadata,
    qParams: json.qParams,
    types,
    ids: json.nodes.map((node) => node.node_id),
    type: json.nodes.map((node) => types.indexOf(node.feature_type)),
    layer: json.nodes.map((node) => node.layer),
    clerp: Object.fromEntries(json.nodes.map((node, i) => [i, node.clerp]).filter(([, text]) => text)),
  };
  let text = JSON.stringify(header);
  while (new TextEncoder().encode(text).length % 8) text += " ";
  const head = new TextEncoder().encode(text);
  const { source, target, weight, inputAbsSum } = graph.links;
  const n = json.nodes.length;
  const bytes = new Uint8Array(16 + head.length + 48 * n + 12 * source.length);
  const view = new DataView(bytes.buffer);
  bytes.set(new TextEncoder().encode("CTGB"));
  [1, head.length, source.length].forEach((value, i) => view.setUint32(4 + 4 * i, value, true));
  bytes.set(head, 16);
  const at = 16 + head.length;
  COLUMNS.forEach((name, c) =>
    json.nodes.forEach((node, i) => view.setFloat64(at + 8 * (c * n + i), node[name] ?? Number.NaN, true)),
  );
  inputAbsSum.forEach((sum, i) => view.setFloat64(at + 8 * (5 * n + i), sum, true));
  source.forEach((from, k) => {
    const place = at + 48 * n + 12 * k;
    view.setUint32(place, from, true);
    view.setUint32(place + 4, target[k], true);
    view.setFloat32(place + 8, weight[k], true);
  });
  return bytes.buffer;
}

const build = (decoded) => graphFromCompact({ ...decoded, raw: rawNodes(decoded) });

test("the compact form gives the graph that the JSON gives", () => {
  const [fromJson, decoded] = [parseGraph(graphJson()), decodeCompact(pack(graphJson()))];
  const graph = build(decoded);
  assert.equal(decoded.complete, true);
  assert.deepEqual(graph.nodes, fromJson.nodes);
  assert.deepEqual([...graph.inputs(3)], [...fromJson.inputs(3)]);
  for (const name of ["share", "strongest", "byTarget", "bySource", "targetStart", "sourceStart"])
    assert.deepEqual(graph.links[name], fromJson.links[name], name);
});

test("the first bytes give the first links, with shares of all input", () => {
  const buffer = pack(graphJson());
  const decoded = decodeCompact(buffer.slice(0, buffer.byteLength - 12 * 4 - 5));
  assert.deepEqual([decoded.complete, decoded.links.count], [false, 1]);
  const whole = parseGraph(graphJson());
  assert.equal(decoded.links.share[0], whole.links.share[0]);
  assert.deepEqual(decoded.links.inputAbsSum, whole.links.inputAbsSum);
});

test("a few links are decoded at once and all of them later, as one decoding gives them", () => {
  const buffer = pack(graphJson());
  const begun = decodeCompact(buffer, 2);
  assert.deepEqual([begun.complete, begun.links.count, bytesOf(begun)], [false, 2, buffer.byteLength]);
  const parts = [buffer.slice(0, 33), buffer.slice(33)];
  const links = decodeLinks(joined(parts), { ...begun, sums: begun.links.inputAbsSum });
  assert.deepEqual(links, decodeCompact(buffer).links);
});

test("what goes to another thread is each buffer once", () => {
  const decoded = decodeCompact(pack(graphJson()));
  const buffers = buffersOf(decoded);
  assert.equal(new Set(buffers).size, buffers.length);
  assert.ok(buffers.includes(decoded.links.share.buffer) && buffers.includes(decoded.columns.feature.buffer));
  assert.equal(buffersOf(decoded.links).length, buffers.length - Object.keys(decoded.columns).length);
});

test("too few bytes are no graph yet, and other files are refused", () => {
  const buffer = pack(graphJson());
  for (const length of [0, 15, 40, 700]) assert.equal(decodeCompact(buffer.slice(0, length)), null);
  assert.throws(() => decodeCompact(new TextEncoder().encode('{"metadata": {}, "nodes": []}').buffer), /compact/);
});

test("sorting by magnitude is exact and stable", () => {
  let seed = 7;
  const random = () => (seed = (seed * 16_807) % 2_147_483_647) / 2_147_483_647;
  const values = Float32Array.from({ length: 5000 }, () => Math.round((random() - 0.5) * 400) / 1000);
  const expected = [...values.keys()].sort((a, b) => Math.abs(values[b]) - Math.abs(values[a]) || a - b);
  assert.deepEqual([...byMagnitude(values)], expected);
});

test("a page without compact forms, or with strange ones, reads the JSON", async () => {
  const readGraph = async () => ({ json: { ...graphJson(), qParams: { clickedId: "x" } }, etag: "1" });
  const strange = async () => ({ bytes: new ArrayBuffer(64), start: 0, tag: null });
  for (const api of [{ readGraph }, { readGraph, readCompact: strange }]) {
    const { graph, params, etag } = await loadGraph(api, "t");
    assert.deepEqual([graph.nodes.length, params.clickedId, etag], [6, "x", "1"]);
  }
});

test("what doesn't come whole is shown first and completed, or taken anew if the graph has changed", async () => {
  const buffer = pack(graphJson());
  const cut = buffer.byteLength - 24;
  for (const changed of [false, true]) {
    const seen = [];
    const readCompact = async (_, { from = 0 }) => {
      if (from === 0) return { bytes: buffer.slice(0, cut), start: 0, tag: "t" };
      return changed ? { bytes: buffer.slice(0), start: 0, tag: "u" } : { bytes: buffer.slice(cut), start: cut, tag: "t" };
    };
    const api = { readCompact };
    const { graph, etag } = await loadGraph(api, "t", ({ graph: first }) => seen.push(first), readAhead(api, "t"));
    assert.deepEqual([seen.map((first) => first.links.count), graph.links.count, etag], [[4], 6, '"json"']);
    assert.equal(graph.nodes === seen[0].nodes, !changed);
    assert.deepEqual([...graph.inputs(3)], [...build(decodeCompact(buffer)).inputs(3)]);
  }
});
