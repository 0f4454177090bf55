/* What a graph file leaves out of a node's input: the question to the server, and the answer in words. Pure. */

import { percent } from "./format.js";
import { fileGraph } from "./graph.js";
import { aboutPrompt } from "./heads.js";

/** Nodes that have inputs. */
export const hasInputs = (node) => node?.kind === "feature" || node?.kind === "logit";

/** The body of `POST api/hidden` for a node: all features of the file are shown, those too that the page has cut. */
export function hiddenRequest(graph, node, top = 12) {
  const shown = fileGraph(graph)
    .nodes.filter(({ kind }) => kind === "feature")
    .map(({ id }) => id);
  return { ...aboutPrompt(graph), node: node.id, shown, top };
}

export function hiddenSentence({ share, count }) {
  if (count === 0) return "Nothing is hidden here: every feature that feeds this node is in the file.";
  const features = count === 1 ? "1 feature that isn't" : `${count.toLocaleString("en")} features that aren't`;
  return `${percent(share)} of what feeds this node comes from ${features} in the file.`;
}

/** What adds a node's hidden inputs to the raw graph. */
export function expandCommand(node, top) {
  return `circuit-tracer expand graph.safetensors --inputs-of ${node.id} --top ${top} -o graph.safetensors`;
}
