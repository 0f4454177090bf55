import assert from "node:assert/strict";
import { test } from "node:test";

import {
  fromParams,
  readPositions,
  toParams,
  writePositions,
} from "../../frontend_static/src/annotations.js";
import { initialState } from "../../frontend_static/src/state.js";

const PARAMS = {
  pinnedIds: ["a", "b"],
  supernodes: [["x, y", "a"]],
  clerps: [["43", "label"]],
  linkType: "input",
  clickedId: "a",
  hiddenIds: ["c"],
  pruningThreshold: 0.5,
  sg_pos: "",
  theirs: { kept: true },
};

test("arrays and the reference's strings mean the same", () => {
  const strings = {
    ...PARAMS,
    pinnedIds: "a,b",
    supernodes: '[["x, y","a"]]',
    clerps: '[["43","label"]]',
    hiddenIds: "c",
    pruningThreshold: "0.5",
  };
  assert.deepEqual(fromParams(strings), fromParams(PARAMS));
  assert.deepEqual(fromParams(PARAMS).labels, { 43: "label" });
});

test("what was read is written back, foreign keys included", () => {
  const state = { ...initialState(), ...fromParams(PARAMS) };
  assert.deepEqual(toParams(state, 0.8), PARAMS);
});

test("the slider at its maximum isn't saved, so that it can't hide nodes later", () => {
  const params = toParams({ ...initialState(), threshold: 0.8 }, 0.8);
  assert.ok(!("pruningThreshold" in params));
});

test("hostile and empty values become empty ones", () => {
  for (const params of [
    undefined,
    null,
    {},
    { pinnedIds: 5, supernodes: "[[", clerps: "{}", clickedId: "null", linkType: "?", pruningThreshold: "x" },
  ]) {
    const state = fromParams(params);
    assert.deepEqual(
      [state.pinned, state.supernodes, state.labels, state.selected, state.linkType, state.threshold],
      [[], [], {}, null, "both", null],
    );
  }
  assert.equal(fromParams({ clickedId: "supernode-3" }).selected, null);
  assert.deepEqual(fromParams({ supernodes: [["only a label"], ["x", 5], "y", ["ok", "a"]] }).supernodes, [
    ["ok", "a"],
  ]);
});

test("positions survive, and numbers for other boxes are ignored", () => {
  const positions = { "b|c": [0.5, 1], a: [0, 0.25] };
  assert.equal(writePositions(positions), "0 250 500 1000");
  assert.deepEqual(readPositions(writePositions(positions), ["b|c", "a"]), positions);
  assert.deepEqual(readPositions("1 2 3", ["a"]), {});
  assert.deepEqual(readPositions("x y", ["a"]), {});
});

test("notes are kept, and what isn't a note is left out", () => {
  const params = { notes: { graph: "g", nodes: { a: "note", b: "", c: 5 } } };
  const { notes } = fromParams(params);
  assert.deepEqual(notes, { graph: "g", nodes: { a: "note" } });
  const saved = toParams({ ...fromParams({}), notes, positions: {}, otherParams: {} }, 0.8);
  assert.deepEqual(saved.notes, { graph: "g", nodes: { a: "note" } });
  for (const value of [null, "text", 5, [], { nodes: null }])
    assert.deepEqual(fromParams({ notes: value }).notes, { graph: "", nodes: {} });
  assert.equal("notes" in toParams({ ...fromParams({}), positions: {} }, null), false);
});
