/* The subgraph: pinned nodes as boxes, groups of them as one box, what flows between boxes, where boxes stand. Pure. */

import { layOut, toUnits } from "./subgraph-layout.js";

const UNNAMED = "supernode";

/**
 * The boxes of the subgraph: one per group with pinned members, one per other pinned node.
 * Each is `{key, label, group, members, layer, position}`; `group` is the supernode's number or −1. A group that contains an id of `expanded`
 * has a box per member, whose `frame` is its number. Each of `drafts` (`[{name, ids}]`) has a box that carries it as `draft` and takes its nodes
 * from the others.
 */
export function makeBoxes(graph, pinned, supernodes, expanded = [], drafts = []) {
  const shown = new Set(pinned.filter((id) => graph.index(id) >= 0));
  const boxes = drafts.map((draft) => ({ ...makeBox(draft.name, -1, draft.ids.map((id) => graph.node(id))), draft }));
  drafts.forEach(({ ids }) => ids.forEach((id) => shown.delete(id)));
  supernodes.forEach(([label, ...ids], group) => {
    const members = ids.filter((id) => shown.delete(id)).map((id) => graph.node(id));
    if (members.length > 1 && ids.some((id) => expanded.includes(id)))
      boxes.push(...members.map((node) => ({ ...makeBox("", -1, [node]), frame: group })));
    else if (members.length > 0) boxes.push(makeBox(label || UNNAMED, group, members));
  });
  for (const id of shown) boxes.push(makeBox("", -1, [graph.node(id)]));
  return boxes;
}

function makeBox(label, group, members) {
  const mean = (value) => members.reduce((sum, node) => sum + value(node), 0) / members.length;
  return {
    key: members
      .map((node) => node.id)
      .sort()
      .join("|"),
    label,
    group,
    members,
    layer: mean((node) => node.layer),
    position: mean((node) => node.position),
  };
}

/** The boxes that the page shows: those of the annotations, and of groups that are only proposed. */
export function shownBoxes(store) {
  const drafts = store.get("drafts")?.groups ?? [];
  return makeBoxes(store.get("graph"), store.get("pinned"), store.get("supernodes"), store.get("expanded"), drafts);
}

/**
 * Effects between boxes, `[{from, to, weight}]` with box numbers, strongest first.
 *
 * A link counts as its part of the target's input from outside its own box, weighted by how much of the target's input comes
 * from outside, relative to the other members of the box. Only links of `pruned` flow; what they are a part of is the same whatever was pruned.
 */
export function boxEdges(graph, boxes, pruned = graph) {
  const boxOf = new Map(boxes.flatMap((box, i) => box.members.map((node) => [node.index, i])));
  const sums = new Map();
  boxes.forEach((box, to) => {
    const external = box.members.map((node) => externalInput(graph, node.index, boxOf));
    const openness = external.map((sum, i) => sum / (graph.links.inputAbsSum[box.members[i].index] || 1));
    const total = openness.reduce((sum, value) => sum + value, 0) || 1;
    box.members.forEach((node, i) => {
      for (const link of pruned.inputs(node.index)) {
        const from = boxOf.get(graph.links.source[link]);
        if (from === undefined || from === to) continue;
        const part = (graph.links.weight[link] / (external[i] || 1)) * (openness[i] / total);
        sums.set(from * boxes.length + to, (sums.get(from * boxes.length + to) ?? 0) + part);
      }
    });
  });
  return [...sums]
    .map(([key, weight]) => ({ from: Math.floor(key / boxes.length), to: key % boxes.length, weight }))
    .sort((a, b) => Math.abs(b.weight) - Math.abs(a.weight) || a.from - b.from || a.to - b.to);
}

function externalInput(graph, index, boxOf) {
  let sum = 0;
  for (const link of graph.inputs(index)) {
    if (boxOf.get(graph.links.source[link]) !== boxOf.get(index)) sum += Math.abs(graph.links.weight[link]);
  }
  return sum;
}

/** All effects of a group's members on one outside node, or its on them: summed shares by the other node's index. */
export function groupConnections(graph, memberIndices, direction) {
  const members = new Set(memberIndices);
  const sums = new Map();
  for (const index of members) {
    for (const link of direction === "input" ? graph.inputs(index) : graph.outputs(index)) {
      const other = direction === "input" ? graph.links.source[link] : graph.links.target[link];
      if (members.has(other)) continue;
      const sum = sums.get(other) ?? { other, share: 0, weight: 0 };
      sum.share += graph.links.share[link] / (direction === "input" ? members.size : 1);
      sum.weight += graph.links.weight[link];
      sums.set(other, sum);
    }
  }
  return [...sums.values()].sort((a, b) => Math.abs(b.share) - Math.abs(a.share) || a.other - b.other);
}

/** `{positions, boxFrame}` with a place for every box if any was dragged, as files want it: those of the screen; empty if none was. */
export function completePositions(graph, { pinned, supernodes, positions, boxFrame = null, expanded = [] }) {
  if (Object.keys(positions).length === 0) return { positions: {}, boxFrame: null };
  const boxes = makeBoxes(graph, pinned, supernodes, expanded);
  if (boxes.every(({ key }) => positions[key]))
    return { positions: Object.fromEntries(boxes.map(({ key }) => [key, positions[key]])), boxFrame };
  const { places } = layOut(boxes, boxEdges(graph, boxes), { positions, frame: boxFrame });
  const units = toUnits(boxes, places);
  return { positions: units.positions, boxFrame: units.frame };
}

/** What all labels say: the label itself, or the first part that they share, parts standing between commas, arrows and middle dots; else "". */
export function commonLabel(labels) {
  if (new Set(labels).size === 1) return labels[0];
  const [first = [], ...others] = labels.map((label) => label.split(/[,·→…]/u).map((part) => part.trim()).filter(Boolean));
  return first.find((part) => others.every((parts) => parts.includes(part))) ?? "";
}

/**
 * The list of groups after merging nodes into one, which is the last. Groups that a chosen node belongs to are dissolved into the new one, and
 * the first of their labels is reused, else the first of `names` that isn't empty.
 */
export function mergeGroups(supernodes, ids, names = []) {
  const touched = supernodes.filter(([, ...members]) => members.some((id) => ids.includes(id)));
  const members = new Set([...touched.flatMap(([, ...group]) => group), ...ids]);
  const label =
    touched.map(([name]) => name).find((name) => name && name !== UNNAMED) ?? names.find(Boolean) ?? UNNAMED;
  return [...supernodes.filter((group) => !touched.includes(group)), Object.freeze([label, ...members])];
}

export function dissolveGroup(supernodes, number) {
  return supernodes.filter((_, i) => i !== number);
}

/** The number of the group that a node belongs to, or −1. */
export function groupOf(supernodes, id) {
  return supernodes.findIndex(([, ...members]) => members.includes(id));
}

export function renameGroup(supernodes, number, label) {
  return supernodes.map((group, i) =>
    i === number ? Object.freeze([label.trim() || UNNAMED, ...group.slice(1)]) : group,
  );
}
