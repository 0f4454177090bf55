/* Links to features on Neuronpedia. The page itself never requests anything from there. Pure. */

const SITE = "https://www.neuronpedia.org";
const GEMMA_SCOPE = Object.freeze({ model: "gemma-2-2b", set: "gemmascope-transcoder-16k" });

/** Transcoder sets whose features Neuronpedia has under the same numbers. */
const KNOWN = Object.freeze({
  "gemma-2-2b": GEMMA_SCOPE,
  "mntss/gemma-scope-transcoders": GEMMA_SCOPE,
  "mwhanna/gemma-scope-transcoders": GEMMA_SCOPE,
});

/** The address of a feature's page, or null where the graph's set isn't known there. */
export function neuronpediaAddress(metadata, node) {
  if (node.kind !== "feature" || node.feature === null) return null;
  const scan = String(metadata.scan ?? "").split("@")[0].split("//")[0];
  const set = metadata.feature_details?.neuronpedia_source_set;
  const named = typeof set === "string" && set !== "";
  const model = KNOWN[scan]?.model ?? (named && /^[\w.-]+$/.test(scan) ? scan : null);
  const source = named ? set : KNOWN[scan]?.set;
  if (!model || !source) return null;
  return `${SITE}/${[model, `${node.layer}-${source}`, String(node.feature)].map(encodeURIComponent).join("/")}`;
}
