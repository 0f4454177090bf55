/* Supernodes made automatically, exactly as `circuit-tracer group` makes them (`graph/grouping.py`): by role, without a cycle. Pure. */

export const LEVEL = 0.35;
const ACROSS = 0.6;
const OPPOSED = -0.5;
const TINY = 1e-12;
const SAYS = 0.5;

/** Most features that are grouped in the page. */
export const MOST_FEATURES = 1500;

/** Influence of each node on the targets over all paths, and of the targets themselves. */
export function influences(graph) {
  const target = Float64Array.from(graph.nodes, (node) => node.asTarget);
  const influence = new Float64Array(target.length);
  const order = [...graph.nodes.keys()].sort((a, b) => rank(graph.nodes[b]) - rank(graph.nodes[a]) || a - b);
  for (const node of order)
    for (const link of graph.inputs(node)) influence[graph.links.source[link]] += (influence[node] + target[node]) * Math.abs(part(graph, link));
  return { influence, reach: influence.map((value, i) => value + target[i]) };
}

const rank = (node) => (node.kind === "token" ? -1 : node.layer);

/** A link's signed part of all absolute input into its target, in full precision. */
const part = ({ links }, link) => links.weight[link] / (links.inputAbsSum[links.target[link]] || 1);

/**
 * What the features of a graph can be grouped into. `at(level, across)` gives the groups at a level as lists of node ids, kept ones first, and
 * whether no cycle leads through them. `keep` are lists of ids that only grow; nodes that aren't `visible` stay alone.
 */
export function createGrouping(graph, { visible = null, keep = [] } = {}) {
  const facts = measure(graph, visible);
  const seeds = keep.map((ids) => ids.map((id) => graph.index(id)).filter((index) => index >= 0)).filter((ids) => ids.length > 0);
  const steps = mergeAll(newState(graph, facts, seeds), onePosition, 0);
  return {
    facts,
    at(level, across = false) {
      const state = newState(graph, facts, seeds);
      for (const step of steps) {
        if (step.height < level) break;
        join(state, state.placeOf.get(step.first), state.placeOf.get(step.second));
      }
      if (across) mergeAll(state, oneConcept, TINY);
      return { groups: groupsOf(graph, state), acyclic: !state.cyclic.some(Boolean) };
    },
  };
}

/** Features in the order of their ids, and how similar each two are. */
function measure(graph, visible) {
  const { influence, reach } = influences(graph);
  const shown = (i) => graph.nodes[i].kind === "feature" && (visible === null || visible[i]);
  const features = [...graph.nodes.keys()].filter(shown).sort((a, b) => byId(graph.nodes[a].id, graph.nodes[b].id));
  const row = new Map(features.map((node, at) => [node, at]));
  const n = features.length;
  const entering = graph.nodes.map(() => []);
  const leaving = graph.nodes.map(() => []);
  for (const [at, node] of features.entries()) {
    for (const link of graph.inputs(node)) entering[graph.links.source[link]].push([at, part(graph, link)]);
    for (const link of graph.outputs(node)) {
      const target = graph.links.target[link];
      leaving[target].push([at, reach[target] * part(graph, link)]);
    }
  }
  const [ofIn, ofOut] = [cosines(entering, n), cosines(leaving, n)];
  return { influence, reach, features, row, similarity: ofIn.map((value, i) => (value + ofOut[i]) / 2), ofOut };
}

const byId = (a, b) => (a < b ? -1 : a > b ? 1 : 0);

/** Cosine of each two of `n` profiles that are given by column: `[[row, value], …]` each. */
function cosines(columns, n) {
  const dots = new Float64Array(n * n);
  for (const column of columns) for (const [a, x] of column) for (const [b, y] of column) dots[a * n + b] += x * y;
  const length = Float64Array.from({ length: n }, (_, i) => Math.sqrt(dots[i * n + i]));
  return dots.map((dot, i) => {
    const [a, b] = [length[Math.floor(i / n)], length[i % n]];
    return a > TINY && b > TINY ? dot / (a * b) : 0;
  });
}

/** Groups under way: kept ones with features first, then features, then all else, of which only paths are of interest. */
function newState(graph, facts, seeds) {
  const taken = new Set(seeds.flat());
  const sorted = [...graph.nodes.keys()].sort((a, b) => byId(graph.nodes[a].id, graph.nodes[b].id));
  const all = [...seeds, ...sorted.filter((node) => !taken.has(node)).map((node) => [node])];
  const grows = (nodes) => nodes.some((node) => facts.row.has(node));
  const members = [...all.filter(grows), ...all.filter((nodes) => !grows(nodes))];
  const placeOf = new Map(members.flatMap((nodes, place) => nodes.map((node) => [node, place])));
  const state = { members, placeOf, isSeed: members.map((nodes) => taken.has(nodes[0])), alive: members.map(() => true), n: all.filter(grows).length };
  addSimilarities(graph, facts, state);
  addReach(graph, state);
  return state;
}

function addSimilarities(graph, facts, state) {
  const { n } = state;
  const count = facts.features.length;
  const places = facts.features.map((node) => state.placeOf.get(node));
  state.size = new Float64Array(n);
  state.total = new Float64Array(n * n);
  state.worst = new Float64Array(n * n).fill(1);
  for (let a = 0; a < count; a += 1) {
    state.size[places[a]] += 1;
    for (let b = 0; b < count; b += 1) {
      const cell = places[a] * n + places[b];
      state.total[cell] += facts.similarity[a * count + b];
      state.worst[cell] = Math.min(state.worst[cell], facts.ofOut[a * count + b]);
    }
  }
  const grown = state.members.slice(0, n);
  state.positions = grown.map((nodes) => new Set(nodes.map((node) => graph.nodes[node].position)));
  state.holds = grown.map((nodes) => new Set(nodes.filter((node) => facts.row.has(node)).map((node) => graph.nodes[node].code)));
}

/** Bit rows: which groups lead to which over any path. */
function addReach(graph, state) {
  const count = state.members.length;
  const words = Math.ceil(count / 32);
  const rows = state.members.map(() => new Uint32Array(words));
  const following = state.members.map(() => new Set());
  for (let link = 0; link < graph.links.count; link += 1) {
    if (graph.links.weight[link] === 0) continue;
    const [from, to] = [state.placeOf.get(graph.links.source[link]), state.placeOf.get(graph.links.target[link])];
    if (from !== to) following[from].add(to);
  }
  following.forEach((after, place) => after.forEach((to) => setBit(rows[place], to)));
  for (let changed = true; changed; ) {
    changed = false;
    following.forEach((after, place) => after.forEach((to) => (changed = orInto(rows[place], rows[to]) || changed)));
  }
  state.reach = rows;
  state.cyclic = rows.map((row, place) => hasBit(row, place));
}

const setBit = (row, i) => (row[i >> 5] |= 1 << (i & 31));
const clearBit = (row, i) => (row[i >> 5] &= ~(1 << (i & 31)));
const hasBit = (row, i) => ((row[i >> 5] >>> (i & 31)) & 1) === 1;

function orInto(row, other) {
  let changed = false;
  for (let i = 0; i < row.length; i += 1) {
    const joined = (row[i] | other[i]) >>> 0;
    changed ||= joined !== row[i];
    row[i] = joined;
  }
  return changed;
}

/** Mean similarity, rounded so that equal ones are equal whatever was summed first. */
const mean = (state, a, b) => roundEven(state.total[a * state.n + b] / (state.size[a] * state.size[b]));

/** To nine digits, halves to even, as numpy rounds. */
function roundEven(value) {
  const scaled = value * 1e9;
  const low = Math.floor(scaled);
  const rest = scaled - low;
  return (rest > 0.5 || (rest === 0.5 && low % 2 !== 0) ? low + 1 : low) / 1e9;
}

const onePosition = (state, a, b) => within(state.positions[a], state.positions[b]) || within(state.positions[b], state.positions[a]);
const oneConcept = (state, a, b) => [...state.holds[a]].some((code) => state.holds[b].has(code)) || mean(state, a, b) >= ACROSS;
const within = (small, large) => small.size <= large.size && [...small].every((value) => large.has(value));

/** Merges what is allowed and leaves no cycle, the most similar pair first, down to a mean similarity of `least`. */
function mergeAll(state, allowed, least) {
  const { n } = state;
  const score = (a, b) => {
    const may = state.alive[a] && state.alive[b] && !(state.isSeed[a] && state.isSeed[b]) && state.worst[a * n + b] > OPPOSED;
    const height = may ? mean(state, a, b) : -Infinity;
    return height >= least && allowed(state, a, b) ? height : -Infinity;
  };
  const table = createScores(n);
  for (let a = 0; a < n; a += 1) for (let b = a + 1; b < n; b += 1) table.put(a, b, score(a, b));
  const steps = [];
  let blocked = [];
  for (let pair = table.best(); pair !== null; pair = table.best()) {
    const { first, second, height } = pair;
    if (!leavesNoCycle(state, first, second)) {
      blocked.push(pair);
      table.put(first, second, -Infinity);
      continue;
    }
    for (const one of blocked) table.put(one.first, one.second, one.height);
    blocked = [];
    steps.push({ first: state.members[first][0], second: state.members[second][0], height });
    join(state, first, second);
    for (let other = 0; other < n; other += 1) {
      if (other !== second) table.put(Math.min(second, other), Math.max(second, other), -Infinity);
      if (other !== first && state.alive[other]) table.put(Math.min(first, other), Math.max(first, other), score(Math.min(first, other), Math.max(first, other)));
    }
  }
  return steps;
}

/** Scores of pairs `a < b` with the best of each row at hand; a row is searched again only when its best has gone. */
function createScores(n) {
  const scores = new Float64Array(n * n).fill(-Infinity);
  const [most, stale] = [new Float64Array(n).fill(-Infinity), new Uint8Array(n)];
  function put(a, b, value) {
    const before = scores[a * n + b];
    if (before === value) return;
    scores[a * n + b] = value;
    if (value > most[a]) most[a] = value;
    else if (before === most[a]) stale[a] = 1;
  }
  function search(a) {
    stale[a] = 0;
    most[a] = -Infinity;
    for (let i = a * n + a + 1; i < (a + 1) * n; i += 1) if (scores[i] > most[a]) most[a] = scores[i];
  }
  function best() {
    let first = -1;
    for (let a = 0; a < n; a += 1) {
      if (stale[a]) search(a);
      if (most[a] > (first < 0 ? -Infinity : most[first])) first = a;
    }
    if (first < 0) return null;
    return { first, second: scores.indexOf(most[first], first * n + first + 1) - first * n, height: most[first] };
  }
  return { put, best };
}

/** Whether no path between two groups visits a third. */
function leavesNoCycle(state, first, second) {
  const through = (from, to) => {
    const row = state.reach[from];
    return state.members.some((_, other) => other !== from && other !== to && hasBit(row, other) && hasBit(state.reach[other], to));
  };
  return !through(first, second) && !through(second, first);
}

/** Merges the second group into the first. */
function join(state, first, second) {
  const { n } = state;
  state.members[first] = [...state.members[first], ...state.members[second]];
  state.members[second].forEach((node) => state.placeOf.set(node, first));
  state.isSeed[first] ||= state.isSeed[second];
  state.size[first] += state.size[second];
  for (let i = 0; i < n; i += 1) state.total[first * n + i] += state.total[second * n + i];
  for (let i = 0; i < n; i += 1) state.total[i * n + first] += state.total[i * n + second];
  for (let i = 0; i < n; i += 1) state.worst[first * n + i] = Math.min(state.worst[first * n + i], state.worst[second * n + i]);
  for (let i = 0; i < n; i += 1) state.worst[i * n + first] = Math.min(state.worst[i * n + first], state.worst[i * n + second]);
  state.positions[second].forEach((value) => state.positions[first].add(value));
  state.holds[second].forEach((value) => state.holds[first].add(value));
  state.alive[second] = false;
  joinReach(state, first, second);
}

function joinReach({ reach, cyclic }, first, second) {
  const isCyclic = cyclic[first] || cyclic[second];
  const before = reach.map((row, i) => i !== first && i !== second && (hasBit(row, first) || hasBit(row, second)));
  const after = reach[first].slice();
  orInto(after, reach[second]);
  clearBit(after, first);
  clearBit(after, second);
  reach.forEach((row, i) => {
    clearBit(row, second);
    if (!before[i]) return clearBit(row, first);
    orInto(row, after);
    setBit(row, first);
  });
  reach[first] = after;
  reach[second] = new Uint32Array(after.length);
  cyclic[first] = isCyclic;
  cyclic[second] = false;
  if (isCyclic) setBit(reach[first], first);
}

function groupsOf(graph, state) {
  const ids = (nodes) => nodes.map((node) => graph.nodes[node].id).sort(byId);
  const living = state.members.map((nodes, i) => ({ ids: ids(nodes), kept: state.isSeed[i], lives: state.alive[i] })).filter(({ lives }) => lives);
  const free = living.filter(({ kept, ids: names }) => !kept && names.length > 1).sort((a, b) => byId(a.ids[0], b.ids[0]));
  return [...living.filter(({ kept }) => kept), ...free].map(({ ids: names, kept }) => ({ ids: names, kept }));
}

/** The numbers of each group: its share of all influence, and how much more similar its features are to each other than to the nearest group. */
export function groupNumbers(graph, { facts }, groups) {
  const n = facts.features.length;
  const rows = groups.map(({ ids }) => ids.map((id) => facts.row.get(graph.index(id))).filter((row) => row !== undefined));
  const total = facts.influence.reduce((sum, value) => sum + value, 0) || 1;
  const between = (a, b) => a.reduce((sum, i) => sum + b.reduce((part, k) => part + facts.similarity[i * n + k], 0), 0);
  return groups.map(({ ids }, at) => {
    const own = rows[at];
    const others = rows.filter((other, i) => i !== at && other.length > 0).map((other) => between(own, other) / (own.length * other.length));
    const inside = (between(own, own) - own.reduce((sum, i) => sum + facts.similarity[i * n + i], 0)) / (own.length * (own.length - 1));
    const influence = ids.reduce((sum, id) => sum + facts.influence[graph.index(id)], 0) / total;
    return { influence, coherence: own.length > 1 && others.length > 0 ? inside - Math.max(...others) : null };
  });
}

/** What a group is called: the word with most influence in its features' labels; "say …" if it mostly acts on the outputs at its position. */
export function groupName(graph, { facts }, ids, labelOf) {
  const nodes = ids.map((id) => graph.node(id));
  const says = actsOnOutputs(graph, facts, nodes);
  const counts = new Map();
  for (const node of nodes) {
    const words = node.kind === "feature" ? (says ? outputs : subjects)(labelOf(node)) : [];
    for (const word of new Set(words)) counts.set(word, (counts.get(word) ?? 0) + facts.influence[node.index]);
  }
  const raised = says && counts.size === 0 ? mostRaised(graph, nodes) : "";
  const places = [...new Set(nodes.map(({ token, position }) => token.trim().split(/\s+/).join(" ") || `position ${position}`))].join(" and ");
  const [word = raised] = [...counts].sort(([a, x], [b, y]) => y - x || byId(a, b)).map(([text]) => text);
  if (!word) return `${ids.length} features at ${places}`;
  return says ? `say ${word}` : `${word}, at ${places}`;
}

function actsOnOutputs(graph, { reach }, nodes) {
  const own = new Set(nodes.map(({ index }) => index));
  const positions = new Set(nodes.map(({ position }) => position));
  let [all, direct] = [0, 0];
  for (const { index } of nodes) {
    for (const link of graph.outputs(index)) {
      const target = graph.links.target[link];
      if (own.has(target)) continue;
      const flow = Math.abs(part(graph, link)) * reach[target];
      all += flow;
      if (graph.nodes[target].kind === "logit" && positions.has(graph.nodes[target].position)) direct += flow;
    }
  }
  return all > 0 && direct > SAYS * all;
}

function mostRaised(graph, nodes) {
  const own = new Set(nodes.map(({ index }) => index));
  const effect = (logit) => [...graph.inputs(logit.index)].reduce((sum, link) => sum + (own.has(graph.links.source[link]) ? graph.links.weight[link] : 0), 0);
  const logits = graph.nodes.filter(({ kind }) => kind === "logit").map((logit) => ({ token: logit.logitToken.trim(), value: effect(logit) }));
  const best = logits.reduce((most, one) => (one.value > most.value ? one : most), { token: "", value: 0 });
  return best.token;
}

/** The parts of a label that say what it is about: not the tokens that only drive it here. */
function subjects(text) {
  const parts = text.replace(/^from [^→⊣]*/u, "").split(/[,·→⊣…]/u);
  return parts.map((word) => word.trim().replace(/^(after|before)\s+/u, "")).filter(Boolean);
}

/** The parts of a label that say what comes next: behind an arrow or "before". */
function outputs(text) {
  const [before, ...after] = text.split("→");
  const following = /\bbefore ([^→]*)/u.exec(before);
  return [...subjects(after.join("→")), ...(following ? subjects(following[1]) : [])];
}
