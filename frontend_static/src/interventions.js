/* Edits of features: what a row of the form means as text, as a request, as a command line; what a result says. Pure. */

import { nodeLabel, number, percent } from "./format.js";
import { fileGraph } from "./graph.js";

export const PRESETS = Object.freeze(["off", "x0.5", "x2", "x-1"]);

/** How effects may spread: what each choice of the form means. */
export const SPREADS = Object.freeze({
  frozen: { title: "spread, attention frozen", freeze_attention: true, constrained_layers: null },
  free: { title: "spread, attention too", freeze_attention: false, constrained_layers: null },
  direct: { title: "direct effects only", freeze_attention: true, constrained_layers: [0, null] },
});

/** A value as an edit has it: `off`, `x2` for a multiple, `4.5`; null for anything else. `×2`, `2x` and `-x` are understood. */
export function readValue(text) {
  const value = text.trim().toLowerCase().replaceAll("×", "x").replaceAll("−", "-").replaceAll(",", ".");
  if (value === "off" || value === "0") return "off";
  if (value === "-x" || value === "x-") return "x-1";
  const match = /^(x)?([+-]?(?:\d+\.?\d*|\.\d+)(?:e[+-]?\d+)?)(x)?$/.exec(value);
  if (!match || (match[1] && match[3])) return null;
  const amount = Number(match[2]);
  return Number.isFinite(amount) ? `${match[1] || match[3] ? "x" : ""}${amount}` : null;
}

/** A value as people read it: `off`, `×2`, `= 4.5`. */
export function showValue(value) {
  if (value === "off") return "off";
  return value.startsWith("x") ? value.replace("x", "×").replace("-", "−") : `= ${value}`;
}

/** What a value may look like. */
export const VALUES = "off, x2 for twice its activation, or an activation such as 4.5";

/** `{error, hint}` about the first row whose value can't be read, or null. */
export function unreadable(rows) {
  const row = rows.find(({ wrong }) => (wrong ?? null) !== null);
  if (!row) return null;
  return { error: `“${row.wrong}” isn't a value for ${row.label}, so nothing was run.`, hint: `Use ${VALUES}.` };
}

/** Whether a node can be edited: features alone. */
export const editable = (node) => node?.kind === "feature" && node.feature !== null;

/**
 * A row of the form for these nodes, or null if none can be edited: `{key, label, ids, left, value, onward}`. `left` counts
 * nodes that can't be edited.
 */
export function makeRow(nodes, label, value = "off") {
  const features = nodes.filter(editable);
  if (features.length === 0) return null;
  const ids = features.map((node) => node.id);
  return { key: ids.join("|"), label, ids, left: nodes.length - ids.length, value, onward: false };
}

/** The rows with one more; one for the same nodes is replaced, and their nodes leave other rows, so that no edit contradicts another. */
export function withRow(rows, row) {
  const rest = rows
    .filter((other) => other.key !== row.key)
    .map((other) => {
      const ids = other.ids.filter((id) => !row.ids.includes(id));
      return ids.length === other.ids.length ? other : { ...other, ids, key: ids.join("|") };
    })
    .filter((other) => other.ids.length > 0);
  return [...rest, row];
}

/** The edits `LAYER/FEATURE@POS=VALUE` that the rows mean; nodes that the graph doesn't have are left out. */
export function editTexts(graph, rows) {
  return rows.flatMap((row) =>
    row.ids
      .map((id) => graph.node(id))
      .filter(editable)
      .map((node) => `${node.layer}/${node.feature}@${node.position}${row.onward ? ":" : ""}=${row.value}`),
  );
}

/** The body of `POST api/runs`. `watch` are node ids. */
export function runRequest(graph, rows, settings, watch) {
  const { freeze_attention, constrained_layers } = SPREADS[settings.spread];
  return {
    prompt: graph.metadata.prompt ?? "",
    prompt_tokens: graph.metadata.prompt_tokens ?? null,
    scan: graph.metadata.scan ?? null,
    edits: editTexts(graph, rows),
    watch: watch.filter((id) => ["feature", "logit"].includes(fileGraph(graph).node(id)?.kind)),
    freeze_attention,
    constrained_layers,
    generate: settings.generate,
    temperature: settings.temperature ?? 0,
    seed: settings.seed ?? 0,
  };
}

/** The same as a command line. */
export function commandLine(request) {
  const words = ["circuit-tracer", "intervene", "-p", request.prompt];
  if (request.scan) words.push("-t", request.scan);
  for (const edit of request.edits) words.push("-e", edit);
  if (request.constrained_layers) words.push("--constrained-layers", ":");
  else if (!request.freeze_attention) words.push("--no-freeze-attention");
  if (request.generate > 0) words.push("--generate", String(request.generate));
  if (request.generate > 0 && request.temperature > 0)
    words.push("--temperature", String(request.temperature), "--seed", String(request.seed));
  return words.map(quoted).join(" ");
}

/** A word for a POSIX shell. */
export function quoted(word) {
  return /^[\w@%+=:,./-]+$/.test(word) ? word : `'${word.replaceAll("'", `'"'"'`)}'`;
}

/** What to type so that this graph can be tested. */
export function serveCommand(graph) {
  const scan = graph?.metadata.scan;
  return `circuit-tracer serve ${quoted("graph_files")} --transcoder-set ${scan ? quoted(scan) : "SET"}`;
}

/** What a run is doing, in a few words. */
export function runStatus({ state, ahead, phase, done, total }) {
  if (state === "queued" && ahead > 0) return `waiting, ${ahead} before it`;
  const steps = total ? ` ${done}/${total}` : "";
  return state === "queued" || state === "running" ? `${phase || "waiting"}${steps} …` : "";
}

/** The tokens that are likely before or after, at most `most`, by probability afterwards: a lost answer stays in sight. */
export function likelyTokens(tokens, most = 8) {
  const larger = (token) => Math.max(token.before, token.after);
  return [...tokens]
    .sort((a, b) => larger(b) - larger(a))
    .slice(0, most)
    .sort((a, b) => b.after - a.after || b.before - a.before);
}

/** Rows of changed nodes, those that change most first: `{id, node, label, before, after, change}` with texts and a relative change. */
export function nodeChanges(graph, nodes, labels = {}, featureLabels = {}) {
  return Object.entries(nodes)
    .filter(([id]) => graph.node(id))
    .map(([id, { kind, before, after }]) => {
      const node = graph.node(id);
      const show = kind === "logit" ? percent : number;
      const label = nodeLabel(node, labels, featureLabels[node.code]);
      return { id, node, label, before: show(before), after: show(after), change: relativeChange(before, after) };
    })
    .sort((a, b) => Math.abs(b.change) - Math.abs(a.change) || a.node.index - b.node.index);
}

/** From −1 for all gone, over 0 for unchanged, to 1 for new or at least doubled. */
export function relativeChange(before, after) {
  if (before === after) return 0;
  if (before === 0) return Math.sign(after);
  return Math.max(-1, Math.min(1, (after - before) / Math.abs(before)));
}
