import assert from "node:assert/strict";
import { test } from "node:test";

import { readPositions, writePositions } from "../../frontend_static/src/annotations.js";
import { flowLines } from "../../frontend_static/src/flow-route.js";
import { BOX, assignRows, layOut, mainFlows, toUnits } from "../../frontend_static/src/subgraph-layout.js";

/** Numbers from 0 to 1 that are the same every time. */
function random(seed) {
  let state = seed * 2654435761 + 1;
  return () => {
    state = (Math.imul(state ^ (state >>> 15), 2246822519) + 3266489917) >>> 0;
    return state / 2 ** 32;
  };
}

/** Boxes as `makeBoxes` gives them, some of several nodes, and flows from lower to higher ones. */
function subgraph(seed, count, { layers = 26, tokens = 12, frames = 0 } = {}) {
  const next = random(seed);
  const whole = (n) => Math.floor(next() * n);
  const boxes = Array.from({ length: count }, (_, i) => {
    const [layer, position] = [whole(layers) - 1, whole(tokens)];
    const members = Array.from({ length: next() < 0.2 ? 1 + whole(4) : 1 }, (__, k) => ({
      id: `${i}.${k}`,
      layer: Math.min(layers - 1, layer + (k ? whole(3) : 0)),
      position: Math.min(tokens - 1, position + (k ? whole(3) : 0)),
      kind: "feature",
    }));
    const mean = (value) => members.reduce((sum, node) => sum + value(node), 0) / members.length;
    const box = { key: members.map(({ id }) => id).join("|"), group: -1, members, layer: mean((n) => n.layer), position: mean((n) => n.position) };
    return frames > 0 && i < frames * 3 && members.length === 1 ? { ...box, frame: i % frames } : box;
  });
  const flows = [];
  for (let from = 0; from < count; from += 1)
    for (let to = 0; to < count; to += 1)
      if (boxes[from].layer < boxes[to].layer && next() < 0.35) flows.push({ from, to, weight: (next() - 0.25) ** 3 });
  flows.sort((a, b) => Math.abs(b.weight) - Math.abs(a.weight));
  return { boxes, flows };
}

function overlaps(places) {
  let count = 0;
  places.forEach((a, i) =>
    places.slice(i + 1).forEach((b) => {
      if (Math.abs(a.x - b.x) < BOX.width && Math.abs(a.y - b.y) < BOX.height) count += 1;
    }),
  );
  return count;
}

/** Pairs of which one has only higher layers and still stands lower. */
function upsideDown(boxes, places) {
  const [low, high] = [(box) => Math.min(...box.members.map((n) => n.layer)), (box) => Math.max(...box.members.map((n) => n.layer))];
  let count = 0;
  boxes.forEach((a, i) =>
    boxes.forEach((b, j) => {
      if (low(a) > high(b) && places[i].y > places[j].y + 0.5) count += 1;
    }),
  );
  return count;
}

test("in 200 random subgraphs no boxes overlap, layers run upwards, and a reload changes nothing", () => {
  for (let seed = 1; seed <= 200; seed += 1) {
    const { boxes, flows } = subgraph(seed, 2 + (seed % 60), { frames: seed % 4 === 0 ? 2 : 0 });
    const panel = [{ width: 500, height: 380 }, { width: 1200, height: 500 }, { width: 320, height: 700 }][seed % 3];
    const { places, routes, width, height } = layOut(boxes, flows, { panel });
    assert.equal(overlaps(places), 0, `seed ${seed}`);
    assert.equal(upsideDown(boxes, places), 0, `seed ${seed}`);
    for (const { x, y } of places)
      assert.ok(x >= BOX.width / 2 && x <= width - BOX.width / 2 && y >= BOX.height / 2 && y <= height - BOX.height / 2);
    assert.equal(flowLines(flows, places, routes).length, flows.length);
    const { positions, frame } = toUnits(boxes, places);
    const read = readPositions(writePositions(positions), boxes.map(({ key }) => key));
    const again = layOut(boxes, flows, { positions: read, frame, panel: { width: 333, height: 222 } }).places;
    const [dx, dy] = [again[0].x - places[0].x, again[0].y - places[0].y];
    again.forEach(({ x, y }, i) => {
      assert.ok(Math.abs(x - places[i].x - dx) <= 0.002 * width && Math.abs(y - places[i].y - dy) <= 0.002 * height, `seed ${seed}`);
    });
    assert.equal(overlaps(again), 0, `seed ${seed} after a reload`);
  }
});

test("in a row tokens run from left to right", () => {
  for (let seed = 1; seed <= 20; seed += 1) {
    const { boxes, flows } = subgraph(seed, 30);
    const single = boxes.map((box) => ({ ...box, members: box.members.slice(0, 1), position: box.members[0].position, layer: box.members[0].layer }));
    const { places } = layOut(single, flows);
    single.forEach((a, i) =>
      single.forEach((b, j) => {
        if (Math.abs(places[i].y - places[j].y) < 1 && a.position < b.position) assert.ok(places[i].x < places[j].x, `seed ${seed}`);
      }),
    );
  }
});

test("what flows strongly into each other stands in different rows", () => {
  const boxes = [0, 1, 2, 3].map((layer) => ({ key: `${layer}`, group: -1, layer, position: 0, members: [{ layer, position: 0 }] }));
  const flows = [0, 1, 2].map((from) => ({ from, to: from + 1, weight: 0.6 }));
  assert.deepEqual(assignRows(boxes, flows, { width: 900, height: 300 }), [0, 1, 2, 3]);
  assert.equal(new Set(assignRows(boxes, [], { width: 900, height: 150 })).size, 1);
});

test("a box that is pinned later takes a free place and moves none that was dragged", () => {
  for (let seed = 1; seed <= 20; seed += 1) {
    const { boxes, flows } = subgraph(seed, 20);
    const { positions, frame } = toUnits(boxes.slice(0, 15), layOut(boxes.slice(0, 15), []).places);
    const { places } = layOut(boxes, flows, { positions, frame });
    assert.equal(overlaps(places), 0);
    const before = layOut(boxes.slice(0, 15), [], { positions, frame }).places;
    const [dx, dy] = [places[0].x - before[0].x, places[0].y - before[0].y];
    before.forEach(({ x, y }, i) => assert.ok(Math.abs(places[i].x - x - dx) < 0.01 && Math.abs(places[i].y - y - dy) < 0.01));
  }
});

test("a file from before keeps the order of its places, and its boxes don't overlap", () => {
  const { boxes } = subgraph(3, 9);
  const positions = Object.fromEntries(boxes.map(({ key }, i) => [key, [(i % 3) / 2, Math.floor(i / 3) / 2]]));
  const { places } = layOut(boxes, [], { positions });
  assert.equal(overlaps(places), 0);
  assert.ok(places[0].x < places[1].x && places[1].x < places[2].x && places[0].y < places[3].y);
});

test("the members of an expanded supernode stand in its frame, alone", () => {
  for (let seed = 4; seed <= 24; seed += 4) {
    const { boxes, flows } = subgraph(seed, 24, { frames: 2 });
    const { places, frames } = layOut(boxes, flows);
    assert.equal(frames.length, 2);
    for (const { group, x, y, width, height } of frames)
      boxes.forEach((box, i) => {
        const inside = places[i].x > x && places[i].x < x + width && places[i].y > y && places[i].y < y + height;
        assert.equal(inside, box.frame === group, `seed ${seed}, box ${i}`);
      });
  }
});

test("lines never turn back: between two boxes each goes one way", () => {
  const { boxes, flows } = subgraph(7, 40);
  const { places, routes } = layOut(boxes, flows);
  flowLines(flows, places, routes).forEach(({ d }, i) => {
    const ys = [...d.matchAll(/(-?[\d.]+),(-?[\d.]+)/g)].map(([, , y]) => Number(y));
    const [a, b] = [places[flows[i].from], places[flows[i].to]];
    if (Math.abs(a.y - b.y) < BOX.height) return;
    const sign = Math.sign(b.y - a.y);
    ys.slice(1).forEach((y, k) => assert.ok(sign * (y - ys[k]) >= -0.2, d));
  });
});

test("60 boxes are laid out within 100 ms of processor time, and hundreds are laid out", () => {
  const { boxes, flows } = subgraph(5, 60);
  layOut(boxes, flows);
  const times = Array.from({ length: 5 }, () => {
    const start = process.cpuUsage();
    layOut(boxes, flows);
    const { user, system } = process.cpuUsage(start);
    return (user + system) / 1000;
  });
  assert.ok(Math.min(...times) < 100, String(times));
  assert.ok(mainFlows(flows, 60).size < 200);
  const many = subgraph(6, 300);
  assert.equal(overlaps(layOut(many.boxes, many.flows).places), 0);
});
