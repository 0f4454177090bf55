/* Supernodes that the page proposes: drafts beside the subgraph until somebody accepts them. The groups are those of `circuit-tracer group`. Pure. */

import { fileGraph } from "./graph.js";
import { createGrouping, groupName, groupNumbers, LEVEL, MOST_FEATURES } from "./grouping.js";

const same = (a, b) => a.length === b.length && a.every((id) => b.includes(id));

/** Groups that people made: those of the file without the ones that `circuit-tracer group` wrote and nobody has changed. */
export function handMade(graph, supernodes) {
  const listed = graph.metadata.grouping?.groups;
  const automatic = (Array.isArray(listed) ? listed : []).filter((group) => group && !group.kept && Array.isArray(group.nodes));
  return supernodes.filter(([name, ...ids]) => !automatic.some((group) => group.name === name && same(group.nodes, ids)));
}

/**
 * All groups at a level, those with the most influence first: `[{name, ids, kept, influence, coherence}]`, as the command makes and names them.
 * `grouping` is what `createGrouping` gave, `made` the groups that it kept.
 */
export function proposedGroups(graph, grouping, made, { level, across, labels, featureLabels }) {
  const { groups } = grouping.at(level, across);
  const numbers = groupNumbers(graph, grouping, groups);
  const labelOf = (node) => labels[node.code] || node.clerp || featureLabels[node.code] || node.proposed;
  const found = groups.map(({ ids, kept }, i) => {
    const [name] = made.find(([, first]) => kept && ids.includes(first)) ?? [groupName(graph, grouping, ids, labelOf)];
    return { name, ids, kept, ...numbers[i] };
  });
  found.sort((a, b) => b.influence - a.influence || (a.ids[0] < b.ids[0] ? -1 : 1));
  const seen = new Map();
  return found.map((group) => {
    const count = (seen.get(group.name) ?? 0) + 1;
    seen.set(group.name, count);
    return Object.freeze({ ...group, name: count === 1 ? group.name : `${group.name} ${count}` });
  });
}

/** Makes drafts, or makes them anew at another level. More features than can be grouped give a notice. */
export function propose(store, { level = LEVEL, across = false } = {}) {
  const graph = store.get("graph");
  if (!graph) return;
  const visible = store.get("visible");
  const count = graph.nodes.filter((node) => node.kind === "feature" && (visible?.[node.index] ?? true)).length;
  if (count > MOST_FEATURES) {
    const text = `${count} features are too many to group here (${MOST_FEATURES} at most): show fewer with Pruning`;
    store.set({ drafts: null, notice: text });
    return;
  }
  const supernodes = store.get("supernodes");
  const before = store.get("drafts");
  const known = before && before.graph === fileGraph(graph) && before.visible === visible && before.supernodes === supernodes;
  const made = known ? before.made : withNodes(graph, handMade(graph, supernodes));
  const grouping = known ? before.grouping : createGrouping(fileGraph(graph), { visible, keep: made.map(([, ...ids]) => ids) });
  const options = { level, across, labels: store.get("labels"), featureLabels: store.get("featureLabels") };
  const all = proposedGroups(fileGraph(graph), grouping, made, options);
  const groups = all.filter(({ ids }) => !supernodes.some(([, ...members]) => same(members, ids)));
  store.set({ drafts: Object.freeze({ graph: fileGraph(graph), visible, supernodes, made, grouping, level, across, all, groups }) });
}

function withNodes(graph, groups) {
  const taken = new Set();
  const free = (id) => graph.index(id) >= 0 && !taken.has(id) && Boolean(taken.add(id));
  return groups.map(([name, ...ids]) => [name, ...ids.filter(free)]).filter((group) => group.length > 1);
}

export function discardDrafts(store) {
  store.set({ drafts: null });
}

/** Makes every draft a supernode, in place of groups of an earlier automatic run, in one edit: what the command writes into the file. */
export function acceptDrafts(store) {
  const drafts = store.get("drafts");
  if (!drafts) return;
  const before = new Set(store.get("supernodes").flatMap(([, ...ids]) => ids));
  const grouped = drafts.all.flatMap(({ ids }) => ids);
  const pinned = [...new Set([...store.get("pinned").filter((id) => !before.has(id)), ...grouped])];
  store.set({ drafts: null });
  store.edit({ pinned, supernodes: drafts.all.map(asSupernode) });
}

/** Makes one draft a supernode; the others stay drafts. What other groups shared with it leaves them. */
export function acceptDraft(store, draft) {
  const { level, across } = store.get("drafts");
  const rest = store.get("supernodes").map(([name, ...ids]) => [name, ...ids.filter((id) => !draft.ids.includes(id))]);
  const supernodes = [...rest.filter((group) => group.length > 2).map(Object.freeze), asSupernode(draft)];
  store.edit({ pinned: [...new Set([...store.get("pinned"), ...draft.ids])], supernodes });
  propose(store, { level, across });
}

const asSupernode = ({ name, ids }) => Object.freeze([name, ...ids]);

/** Keeps drafts in step with the graph and its groups: made anew after an edit or pruning, gone with another graph. Returns how to end that. */
export function followDrafts(store) {
  return store.subscribe(["graph", "visible", "supernodes"], () => {
    const drafts = store.get("drafts");
    if (!drafts) return;
    const graph = store.get("graph");
    if (!graph || fileGraph(graph) !== drafts.graph) discardDrafts(store);
    else if (store.get("visible") !== drafts.visible || store.get("supernodes") !== drafts.supernodes) propose(store, drafts);
  });
}
