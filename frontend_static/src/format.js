/* Numbers, tokens and node names as text. Pure. */

const VISIBLE_WHITESPACE = { "\n": "⏎", "\t": "→", "\r": "↵" };
const JOIN_LIMIT = 5;

/** A token with its invisible characters shown. */
export function showToken(token) {
  const shown = token.replace(/[\n\t\r]/g, (character) => VISIBLE_WHITESPACE[character]);
  return shown.trim() === "" && shown !== "" ? "␣".repeat(Math.min(shown.length, 8)) : shown;
}

/** A token as a label: shown, trimmed and never longer than `limit` characters. */
export function tokenLabel(token, limit = 40) {
  return shorten(showToken(token).trim() || token, limit);
}

/** Text cut after `limit` code points. */
export function shorten(text, limit) {
  if (text.length <= limit) return text;
  const points = Array.from(text.slice(0, limit * 2 + 2));
  return points.length <= limit ? text : `${points.slice(0, limit - 1).join("")}…`;
}

/** `+0.123` or `−0.123`. */
export function signed(value, digits = 3) {
  return `${value < 0 ? "−" : "+"}${Math.abs(value).toFixed(digits)}`;
}

/** A share as a signed percentage: `+12.3 %`. */
export function signedPercent(share) {
  const percent = Math.abs(share * 100);
  return `${share < 0 ? "−" : "+"}${percent.toFixed(percent < 10 ? 1 : 0)} %`;
}

/** A probability or frequency: `41 %`, `0.21 %`, `< 0.001 %`. */
export function percent(fraction) {
  const value = fraction * 100;
  if (value > 0 && value < 0.001) return "< 0.001 %";
  return `${Number(value.toPrecision(value >= 10 ? 3 : 2))} %`;
}

/** A node's own share of all influence: `15.8 %`, or `≤ 0.3 %` where the file tells no more. */
export function ownInfluence({ ownInfluence: share, influenceAtMost }) {
  if (share === null || share === undefined) return "–";
  return `${influenceAtMost ? "≤ " : ""}${percent(share)}`;
}

/** What a node's influence is, and its rank's cumulative score. */
export function influenceTitle({ influence }) {
  return `Own share of all influence on the outputs. Together with every more influential node: ${number(influence)} (cumulative influence)`;
}

/** A number with three significant digits and no exponent where that stays short. */
export function number(value) {
  if (value === null || value === undefined || !Number.isFinite(value)) return "–";
  return Math.abs(value) >= 1000
    ? Math.round(value).toLocaleString("en")
    : String(Number(value.toPrecision(3)));
}

/** Where a node is: `Emb`, `L12`, `Logit`. */
export function layerLabel(node) {
  if (node.kind === "logit") return "Logit";
  return node.layer < 0 ? "Emb" : `L${node.layer}`;
}

/** What a node is called: the user's label, else the file's, else one from a feature's own file, else what it is. */
export function nodeLabel(node, labels = {}, featureLabel = "") {
  if (node.kind === "logit") return `${tokenLabel(node.logitToken || node.clerp || node.id)}`;
  if (node.kind === "token") return tokenLabel(node.token || node.clerp || node.id);
  if (node.kind === "error") return node.clerp || `Error · ${tokenLabel(node.token)}`;
  return labels[node.code] || node.clerp || featureLabel || node.proposed || `Feature ${node.feature}`;
}

/** Where the name of a node comes from if it is only proposed in the graph's file, as text for people; else "". */
export function proposedOrigin(node, labels = {}, featureLabel = "") {
  if (node.kind !== "feature" || labels[node.code] || node.clerp || featureLabel || !node.proposed) return "";
  return node.provenance || "proposed by the model's own weights";
}

/** One line that tells a node from every other: name, layer, position. */
export function nodePlace(node) {
  if (node.difference) return "difference of two outputs";
  if (node.kind === "logit") return `output · ${percent(node.probability)}`;
  const where = `${tokenLabel(node.token, 18)}`;
  return node.kind === "token" ? `token ${node.position}` : `${layerLabel(node)} · ${where}`;
}

/** The activation's percentile among the feature's activations: first index + 1 that reaches it, 100 above all. */
export function percentile(quantileValues, activation) {
  const at = quantileValues.findIndex((value) => value >= activation);
  return at < 0 ? 100 : at + 1;
}

/**
 * Tokens with `\xHH` escapes joined, up to five, until their bytes form characters; each group has its largest activation.
 * Returns `[{text, activation, from, to}]`, `to` exclusive.
 */
export function joinTokens(tokens, activations) {
  const joined = [];
  for (let from = 0; from < tokens.length;) {
    const to = from + groupLength(tokens, from);
    const text = tokens.slice(from, to).join("");
    joined.push({
      text: decodeEscapes(text) ?? text,
      activation: Math.max(0, ...activations.slice(from, to).filter(Number.isFinite)),
      from,
      to,
    });
    from = to;
  }
  return joined;
}

function groupLength(tokens, from) {
  if (!/\\x[0-9a-f]{2}/i.test(tokens[from])) return 1;
  for (let length = 1; length <= JOIN_LIMIT && from + length <= tokens.length; length += 1) {
    if (decodeEscapes(tokens.slice(from, from + length).join("")) !== null) return length;
  }
  return 1;
}

function decodeEscapes(text) {
  const bytes = [];
  for (const part of text.split(/(\\x[0-9a-fA-F]{2})/)) {
    if (/^\\x[0-9a-fA-F]{2}$/.test(part)) bytes.push(Number.parseInt(part.slice(2), 16));
    else bytes.push(...new TextEncoder().encode(part));
  }
  try {
    return new TextDecoder("utf-8", { fatal: true }).decode(Uint8Array.from(bytes));
  } catch {
    return null;
  }
}

/** Neighbouring joined tokens of equal activation as one span; the one at `centre` always stands alone. */
export function mergeSpans(joined, centre) {
  const spans = [];
  for (const token of joined) {
    const isCentre = token.from <= centre && centre < token.to;
    const last = spans.at(-1);
    if (last && !isCentre && !last.isCentre && last.activation === token.activation) last.text += token.text;
    else spans.push({ text: token.text, activation: token.activation, isCentre });
  }
  return spans;
}
