/* The model's most likely next tokens: the outputs that a graph explains, and others named in its file. Pure. */

import { lastOutputs } from "./graph.js";

/**
 * `[{token, probability, index}]`, most likely first; `index` is the output's node, or null for a token that isn't in the graph. The file may
 * name the model's own predictions as `metadata.top_predictions`: `[{token, id, probability}]`; anything else there is passed over.
 */
export function predictedTokens(graph) {
  const outputs = lastOutputs(graph).filter((node) => !node.difference);
  const known = new Set(outputs.map(({ id }) => Number(id.split("_")[1])));
  const given = Array.isArray(graph.metadata.top_predictions) ? graph.metadata.top_predictions : [];
  const others = given
    .filter((entry) => typeof entry?.token === "string" && Number.isFinite(entry.probability) && !known.has(entry.id))
    .map(({ token, probability }) => ({ token, probability, index: null }));
  return [...outputs.map(({ logitToken, probability, index }) => ({ token: logitToken, probability, index })), ...others].sort(
    (a, b) => b.probability - a.probability,
  );
}
