import assert from "node:assert/strict";
import { test } from "node:test";

import { parseGraph } from "../../frontend_static/src/graph.js";
import {
  commandLine,
  editTexts,
  likelyTokens,
  makeRow,
  nodeChanges,
  quoted,
  readValue,
  relativeChange,
  runRequest,
  runStatus,
  serveCommand,
  unreadable,
  showValue,
  withRow,
} from "../../frontend_static/src/interventions.js";
import { graphJson } from "./builders.mjs";

const graph = parseGraph(graphJson({ metadata: { scan: "my set" } }));
const SETTINGS = { spread: "frozen", generate: 4 };
const row = (...ids) => makeRow(ids.map((id) => graph.node(id)), "some");

test("values are read as people write them", () => {
  const cases = { off: "off", 0: "off", x2: "x2", "×2": "x2", "2x": "x2", "-x": "x-1", "x−1": "x-1", 4.5: "4.5", "1,5": "1.5", "-3": "-3", ".5": "0.5", "1e1": "10" };
  for (const [text, value] of Object.entries(cases)) assert.equal(readValue(text), value, text);
  for (const text of ["", "x", "two", "x2x", "NaN", "Infinity", "1e999", "off=3"]) assert.equal(readValue(text), null, text);
});

test("values are shown", () => {
  assert.deepEqual(["off", "x2", "x-1", "4.5"].map(showValue), ["off", "×2", "×−1", "= 4.5"]);
});

test("only features can be edited", () => {
  assert.equal(row("E_3_1", "1_-1_2", "3_42_2"), null);
  const mixed = row("0_5_1", "E_3_1");
  assert.deepEqual([mixed.ids, mixed.left], [["0_5_1"], 1]);
});

test("a node is in one row only", () => {
  const both = row("0_5_1", "1_7_2");
  const one = { ...row("0_5_1"), value: "x2" };
  assert.deepEqual(editTexts(graph, withRow([both], one)), ["1/7@2=off", "0/5@1=x2"]);
  assert.deepEqual(editTexts(graph, withRow([one], both)), ["0/5@1=off", "1/7@2=off"]);
  assert.equal(withRow([one], { ...one, value: "off" }).length, 1);
});

test("an onward row is open ended", () => {
  assert.deepEqual(editTexts(graph, [{ ...row("0_5_1"), onward: true, value: "4.5" }]), ["0/5@1:=4.5"]);
});

test("a request watches features and outputs", () => {
  const request = runRequest(graph, [row("0_5_1")], SETTINGS, ["1_7_2", "E_3_1", "3_42_2", "gone"]);
  assert.deepEqual(request.watch, ["1_7_2", "3_42_2"]);
  assert.equal(request.scan, "my set");
  assert.equal(request.constrained_layers, null);
  const direct = runRequest(graph, [row("0_5_1")], { ...SETTINGS, spread: "direct" }, []);
  assert.deepEqual(direct.constrained_layers, [0, null]);
});

test("the command line does the same", () => {
  const request = runRequest(graph, [row("0_5_1")], { spread: "free", generate: 0 }, []);
  assert.equal(
    commandLine({ ...request, prompt: "it's $HOME" }),
    `circuit-tracer intervene -p 'it'"'"'s $HOME' -t 'my set' -e 0/5@1=off --no-freeze-attention`,
  );
  assert.match(commandLine({ ...request, constrained_layers: [0, null], generate: 3 }), / --constrained-layers : --generate 3$/);
  assert.equal(quoted(""), "''");
  assert.equal(serveCommand(graph), "circuit-tracer serve graph_files --transcoder-set 'my set'");
  assert.match(serveCommand(null), /SET$/);
});

test("a run says what it does", () => {
  assert.equal(runStatus({ state: "queued", ahead: 2, phase: "" }), "waiting, 2 before it");
  assert.equal(runStatus({ state: "running", ahead: 0, phase: "continuing", done: 3, total: 8 }), "continuing 3/8 …");
  assert.equal(runStatus({ state: "done", ahead: 0, phase: "x", done: 1, total: null }), "");
});

test("changes are sorted by how much they are", () => {
  const nodes = {
    "0_5_1": { kind: "feature", before: 2, after: 1 },
    "1_7_2": { kind: "feature", before: 4, after: 0 },
    "3_42_2": { kind: "logit", before: 0.25, after: 0.26 },
    gone: { kind: "feature", before: 1, after: 0 },
  };
  const rows = nodeChanges(graph, nodes, {}, {});
  assert.deepEqual(rows.map(({ id }) => id), ["1_7_2", "0_5_1", "3_42_2"]);
  assert.deepEqual(rows.map(({ before, after }) => [before, after]), [["4", "0"], ["2", "1"], ["25 %", "26 %"]]);
  assert.deepEqual([relativeChange(0, 3), relativeChange(1, 1), relativeChange(-1, 4)], [1, 0, 1]);
});

test("the answer that an edit takes away stays in the table", () => {
  const after = Array.from({ length: 9 }, (_, i) => ({ text: `new ${i}`, before: 0, after: 0.1 - i / 1000 }));
  const shown = likelyTokens([...after, { text: "old", before: 0.99, after: 1e-6 }]);
  assert.equal(shown.length, 8);
  assert.equal(shown[0].text, "new 0");
  assert.equal(shown.at(-1).text, "old");
});

test("a value that can't be read is named, and the text that was typed with it", () => {
  assert.equal(unreadable([{ label: "Texas", value: "off" }]), null);
  const found = unreadable([{ label: "a", value: "off", wrong: null }, { label: "Texas", value: "off", wrong: "banana" }]);
  assert.match(found.error, /“banana” isn't a value for Texas/);
  assert.match(found.hint, /x2/);
});

test("drawing is part of the request, and of the command where something is drawn", () => {
  const request = runRequest(graph, [row("0_5_1")], { spread: "free", generate: 3, temperature: 0.5, seed: 7 }, []);
  assert.deepEqual([request.temperature, request.seed], [0.5, 7]);
  assert.match(commandLine(request), / --generate 3 --temperature 0\.5 --seed 7$/);
  assert.doesNotMatch(commandLine({ ...request, temperature: 0 }), /seed/);
});
