/* What the scatter plot shows: the numbers of nodes, axes that fit them, and which points a lasso holds. Pure. */

const KNOWN = Object.freeze({
  layer: "Layer",
  position: "Position",
  activation: "Activation",
  ownInfluence: "Influence",
  influence: "Cumulative influence",
  probability: "Output probability",
  feature: "Feature index",
  inputs: "Number of inputs",
  outputs: "Number of outputs",
  strongest: "Strongest share of a target's input",
});
const NOT_ATTRIBUTES = new Set(["index", "code"]);
/** Keys of the file whose numbers the plot has under its own names. */
const ALIASES = Object.freeze({ ctx_idx: "position", token_prob: "probability", activation: "activation", influence: "influence" });

/** A name from an address as the plot calls it: the file's own keys are understood too. */
export function attributeName(name) {
  return ALIASES[name] ?? name;
}

/**
 * The attributes that at least two nodes have different numbers for: `[{name, title, values}]`, NaN where a node has none. `raw` are the nodes
 * as the file has them, once they are read; a key of theirs that the plot's own names use already is told apart as `raw_KEY`.
 */
export function attributes(graph, raw = null) {
  const found = new Map();
  const put = (name, index, value) => {
    if (typeof value !== "number" || !Number.isFinite(value)) return;
    if (!found.has(name)) found.set(name, new Float64Array(graph.nodes.length).fill(Number.NaN));
    found.get(name)[index] = value;
  };
  for (const node of graph.nodes) {
    for (const [name, value] of Object.entries(node)) if (!NOT_ATTRIBUTES.has(name)) put(name, node.index, value);
    for (const [key, value] of Object.entries(raw?.[node.index] ?? {}))
      if (!(key in ALIASES)) put(key in KNOWN ? `raw_${key}` : key, node.index, value);
    const outputs = graph.outputs(node.index);
    put("inputs", node.index, graph.inputs(node.index).length);
    put("outputs", node.index, outputs.length);
    if (outputs.length > 0) put("strongest", node.index, Math.abs(graph.links.share[outputs[0]]));
  }
  return [...found]
    .filter(([, values]) => varies(values))
    .map(([name, values]) => ({ name, title: KNOWN[name] ?? name.replaceAll("_", " "), values }))
    .sort((a, b) => rank(a.name) - rank(b.name) || a.title.localeCompare(b.title));
}

function rank(name) {
  const at = Object.keys(KNOWN).indexOf(name);
  return at < 0 ? Object.keys(KNOWN).length : at;
}

function varies(values) {
  const first = values.find((value) => !Number.isNaN(value));
  return first !== undefined && values.some((value) => !Number.isNaN(value) && value !== first);
}

/** `{low, high, ticks}` of an axis: round numbers at even steps, with some room at both ends. */
export function axis(values, count = 6) {
  let [low, high] = [Infinity, -Infinity];
  for (const value of values) {
    if (Number.isNaN(value)) continue;
    low = Math.min(low, value);
    high = Math.max(high, value);
  }
  if (low > high) return { low: 0, high: 1, ticks: [0, 1] };
  if (low === high) [low, high] = [low - 1, high + 1];
  const step = roundStep((high - low) / count);
  const room = (high - low) * 0.04;
  const ticks = [];
  for (let k = Math.ceil((low - room) / step); k * step <= high + room; k += 1)
    ticks.push(Number((k * step).toPrecision(12)));
  return { low: low - room, high: high + room, ticks };
}

function roundStep(rough) {
  const power = 10 ** Math.floor(Math.log10(rough));
  return [1, 2, 5, 10].find((factor) => factor * power >= rough) * power;
}

/** Whether a point lies in a polygon `[[x, y], …]` (even-odd rule). */
export function isInside(polygon, x, y) {
  let inside = false;
  for (let i = 0, j = polygon.length - 1; i < polygon.length; j = i, i += 1) {
    const [[xi, yi], [xj, yj]] = [polygon[i], polygon[j]];
    if (yi > y !== yj > y && x < ((xj - xi) * (y - yi)) / (yj - yi) + xi) inside = !inside;
  }
  return inside;
}
