/* Everything that users can do to the view, as changes of the store. Panels and the keyboard call only these. */

import { commonLabel, dissolveGroup, groupOf, mergeGroups, renameGroup } from "./supernodes.js";
import { nodeLabel } from "./format.js";
import { withDifference } from "./difference.js";
import { topLogit } from "./graph.js";
import { unpruned } from "./pruned-graph.js";

/** Selects a node; the selected one again, or null, clears the selection. */
export function select(store, id, { toggle = true } = {}) {
  store.set({
    selected: toggle && id === store.get("selected") ? null : id,
    flow: null,
    wholeGroup: false,
    editing: false,
  });
}

/** Selects all members of a supernode; the selection's id is its first member's. */
export function selectGroup(store, id) {
  const again = store.get("wholeGroup") && store.get("selected") === id;
  store.set({ selected: again ? null : id, wholeGroup: !again, flow: null, editing: false });
}

/** The indices of what is selected: one node, or all pinned members of its supernode. */
export function selectedIndices(store) {
  const graph = store.get("graph");
  const group =
    store.get("wholeGroup") &&
    store.get("supernodes").find(([, ...ids]) => ids.includes(store.get("selected")));
  const ids = group
    ? group.slice(1).filter((id) => store.get("pinned").includes(id))
    : [store.get("selected")];
  return ids.map((id) => graph.index(id)).filter((index) => index >= 0);
}

/** What a click on a node does: select, with Ctrl or Cmd pin, while g is held mark for grouping. */
export function click(store, id, event) {
  if (store.get("grouping")) markForGroup(store, id);
  else if (event.ctrlKey || event.metaKey) togglePin(store, id);
  else select(store, id);
}

export function hover(store, id) {
  if (store.get("hovered") !== id) store.set({ hovered: id });
}

export function togglePin(store, id) {
  const pinned = store.get("pinned");
  store.edit({ pinned: pinned.includes(id) ? pinned.filter((other) => other !== id) : [...pinned, id] });
}

/** Pins all of these nodes in one edit. */
export function pinAll(store, ids) {
  const pinned = [...new Set([...store.get("pinned"), ...ids])];
  if (pinned.length > store.get("pinned").length) store.edit({ pinned });
}

export function unpinAll(store) {
  if (store.get("pinned").length > 0) store.edit({ pinned: [], supernodes: [], positions: {}, boxFrame: null, expanded: [] });
}

/** Adds a node, or the group that it belongs to, to the nodes marked while g is held; marked ones are taken out. */
export function markForGroup(store, id) {
  const group = store.get("supernodes").find(([, ...members]) => members.includes(id));
  const ids = group ? group.slice(1) : [id];
  const marked = store.get("grouping") ?? [];
  const without = marked.filter((other) => !ids.includes(other));
  store.set({ grouping: without.length < marked.length ? without : [...marked, ...ids] });
}

export function beginGrouping(store) {
  if (store.get("grouping") === null) store.set({ grouping: [] });
}

/** Merges marked nodes into one supernode, pins it and asks for its name; does nothing for fewer than two nodes. */
export function finishGrouping(store) {
  const marked = store.get("grouping") ?? [];
  store.set({ grouping: null });
  if (marked.length < 2) return;
  const supernodes = mergeGroups(store.get("supernodes"), marked, proposedNames(store, marked));
  store.edit({ supernodes, pinned: [...new Set([...store.get("pinned"), ...marked])] }, namingOf(marked[0]));
  store.set({ naming: marked[0] });
}

/** Names for a group: what all features' labels share, then each label given by a person. */
function proposedNames(store, ids) {
  const [labels, proposed] = [store.get("labels"), store.get("featureLabels")];
  const nodes = ids.map((id) => store.get("graph").node(id)).filter(Boolean);
  const named = nodes.filter((node) => node.kind !== "feature" || node.clerp || labels[node.code] || proposed[node.code]);
  const all = named.length === nodes.length ? nodes.map((node) => nodeLabel(node, labels, proposed[node.code])) : [];
  const given = nodes.filter((node) => node.clerp || labels[node.code]);
  return [commonLabel(all), ...given.map((node) => nodeLabel(node, labels))];
}

/** Making a group and naming it right away are undone as one. */
const namingOf = (id) => `group ${id}`;

/** Names the group that has just been made of a node and others. */
export function nameGroup(store, id, label) {
  const number = groupOf(store.get("supernodes"), id);
  if (number >= 0) rename(store, number, label, namingOf(id));
}

export function cancelGrouping(store) {
  store.set({ grouping: null });
}

export function dissolve(store, number) {
  store.edit({ supernodes: dissolveGroup(store.get("supernodes"), number) });
}

export function rename(store, number, label, sitting = null) {
  if (store.get("supernodes")[number]?.[0] === label) return;
  store.edit({ supernodes: renameGroup(store.get("supernodes"), number, label) }, sitting);
}

/** Labels a feature everywhere it occurs; an empty label removes the user's label. */
export function setLabel(store, code, label) {
  const labels = { ...store.get("labels") };
  const text = label.trim();
  if ((labels[code] ?? "") === text) return;
  if (text) labels[code] = text;
  else delete labels[code];
  store.edit({ labels });
}

/** Keeps boxes where they are, as [x, y] from 0 to 1 by key, in a drawing of the size `boxFrame`. */
export function moveBoxes(store, positions, boxFrame, sitting = null) {
  store.edit({ positions, boxFrame }, sitting);
}

/** Drops the positions of dragged boxes. */
export function freeBoxes(store) {
  if (Object.keys(store.get("positions")).length > 0) store.edit({ positions: {}, boxFrame: null });
}

/** Shows the members of a supernode in its place, or the supernode again. */
export function toggleExpanded(store, number) {
  const members = store.get("supernodes")[number].slice(1);
  const others = store.get("expanded").filter((id) => !members.includes(id));
  const open = others.length < store.get("expanded").length;
  store.edit({ expanded: open ? others : [...others, members[0]] });
}

/** Selects a flow of the subgraph by the keys of its ends; the same again clears it. */
export function selectFlow(store, flow) {
  const again = flow && store.get("flow")?.from === flow.from && store.get("flow")?.to === flow.to;
  store.set({ flow: again ? null : flow, ...(flow && !again ? { selected: null, wholeGroup: false } : {}) });
}

/**
 * Goes along the selected node's strongest visible link: `input` down, `output` up. Without a selection, selects the
 * most likely logit.
 */
export function follow(store, direction) {
  const [graph, visible] = [store.get("pruned"), store.get("visible")];
  const from = graph.index(store.get("selected"));
  if (from < 0) return select(store, topLogit(graph)?.id ?? null, { toggle: false });
  const links = direction === "input" ? graph.inputs(from) : graph.outputs(from);
  const end = direction === "input" ? graph.links.source : graph.links.target;
  const link = links.find((k) => visible[end[k]]);
  if (link === undefined) return;
  store.set({ trail: { from: graph.nodes[from].id, direction } });
  select(store, graph.nodes[end[link]].id, { toggle: false });
}

/** Goes to the next weaker (+1) or stronger (−1) link of the node that the last `follow` came from. */
export function followSibling(store, step) {
  const [graph, visible, trail] = [store.get("pruned"), store.get("visible"), store.get("trail")];
  if (!trail || graph.index(trail.from) < 0) return;
  const from = graph.index(trail.from);
  const links = trail.direction === "input" ? graph.inputs(from) : graph.outputs(from);
  const end = trail.direction === "input" ? graph.links.source : graph.links.target;
  const others = [...links].map((k) => end[k]).filter((index) => visible[index]);
  const at = others.indexOf(graph.index(store.get("selected")));
  const next = others[at + step];
  if (at >= 0 && next !== undefined) select(store, graph.nodes[next].id, { toggle: false });
}

/** Shows the node of a difference of outputs (`A__vs__B`), selected; null takes it away. */
export function setDifference(store, text) {
  const before = store.get("graph");
  const graph = withDifference(before, text);
  const left = graph.node(store.get("selected"))?.id ?? topLogit(graph)?.id ?? null;
  store.set({
    graph,
    difference: graph.base ? text : null,
    ...unpruned(graph, store.get("pinned"), store.get("hidden")),
    selected: graph.base ? graph.nodes.at(-1).id : left,
    wholeGroup: false,
  });
}

/** Explains a node in place of the outputs; with null the outputs again. */
export function explain(store, id) {
  if (store.get("root") !== id) store.edit({ root: id });
}

/** Writes the note of a node, or with null the graph's; what is typed in one go is undone as one. An empty text takes it away. */
export function setNote(store, id, text) {
  const notes = store.get("notes");
  if ((id === null ? notes.graph : (notes.nodes[id] ?? "")) === text) return;
  const { [id]: _, ...others } = notes.nodes;
  const nodes = id === null ? notes.nodes : Object.freeze(text ? { ...others, [id]: text } : others);
  const graph = id === null ? text : notes.graph;
  store.edit({ notes: Object.freeze({ graph, nodes }) }, `note ${id ?? ""}`);
}
