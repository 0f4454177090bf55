/* Below a node's inputs: those that the graph file leaves out, asked of the server's model when somebody wants to know. */

import { addNodes, expandRequest, fileOf } from "../added.js";
import { h } from "../dom.js";
import { number } from "../format.js";
import { expandCommand, hasInputs, hiddenRequest, hiddenSentence } from "../hidden.js";
import { sourceName } from "../heads.js";
import { commandBlock } from "./command-block.js";
import { answerOf } from "./heads.js";

/** `{parts(graph, node), opened()}`; `render` is called whenever there is something else to show. */
export function hiddenInputs(store, { hidden, expand, runs } = {}, render) {
  const own = { ready: false, answers: new Map(), asking: null, adding: null, failure: null, file: null };

  /** Another graph: nothing is known of it, and the server may have got a model meanwhile. */
  async function opened() {
    const file = fileOf(store.get("graph"));
    if (own.file !== file) Object.assign(own, { file, answers: new Map(), asking: null, adding: null, failure: null });
    if (!hidden || !store.get("graph")) return;
    const model = await runs.model().catch(() => ({ state: "none" }));
    if (own.ready === (model.state === "ready")) return;
    own.ready = model.state === "ready";
    render();
  }

  async function ask(graph, node) {
    const { answers } = own;
    Object.assign(own, { asking: node.id, failure: null });
    render();
    try {
      const answer = await answerOf(hidden(hiddenRequest(graph, node)), runs, () => own.asking === node.id);
      if (own.asking !== node.id || own.answers !== answers) return;
      answers.set(node.id, answer);
      own.asking = null;
    } catch (error) {
      if (own.asking !== node.id) return;
      Object.assign(own, { asking: null, failure: { node: node.id, error: error.message, hint: error.hint } });
    }
    render();
  }

  async function add(graph, node, ids) {
    const { file } = own;
    Object.assign(own, { adding: node.id, failure: null });
    render();
    try {
      const answer = await answerOf(expand(expandRequest(graph, ids)), runs, () => own.file === file);
      if (own.file !== file) return;
      own.adding = null;
      addNodes(store, answer);
    } catch (error) {
      if (own.file !== file) return;
      Object.assign(own, { adding: null, failure: { node: node.id, error: error.message, hint: error.hint } });
    }
    render();
  }

  function parts(graph, node) {
    if (!own.ready || !hasInputs(node)) return [];
    const answer = own.answers.get(node.id);
    const problem = own.failure?.node === node.id && own.failure;
    if (answer) return [answered(store, graph, node, answer, { busy: own.adding !== null, problem, add: (ids) => add(graph, node, ids) })];
    if (own.asking === node.id) return [h("p", { class: "muted hidden-inputs", role: "status" }, "Asking the model …")];
    const failed = own.failure?.node === node.id ? own.failure : null;
    return [
      failed && h("p", { class: "warn hidden-inputs" }, [failed.error, failed.hint].filter(Boolean).join(" · ")),
      h("button", { class: "more", type: "button", onclick: () => ask(graph, node) }, "What is hidden here?"),
    ].filter(Boolean);
  }

  return { parts, opened };
}

function answered(store, graph, node, answer, { busy, problem, add }) {
  const left = answer.strongest.map(({ node_id: id }) => id).filter((id) => graph.index(id) < 0);
  const rows = answer.strongest.map(({ node_id: id, weight, activation }) => {
    const { label, place } = sourceName(graph, id, store.get("labels"), store.get("featureLabels"));
    return h(
      "li",
      { class: "hidden-input", "data-source": id, title: `activation ${number(activation)}` },
      h("span", { class: "node-name" }, label),
      h("span", { class: "node-place" }, place),
      h("span", { class: "node-amount" }, number(weight)),
      left.includes(id)
        ? h("button", { class: "small", type: "button", disabled: busy, "aria-label": `Add ${label}`, title: "Add to the graph", onclick: () => add([id]) }, "+")
        : h("span", { class: "muted", title: "In the graph" }, "✓"),
    );
  });
  return h(
    "section",
    { class: "hidden-inputs", "aria-label": "Hidden inputs" },
    h("p", {}, hiddenSentence(answer)),
    rows.length > 0 && h("ul", {}, ...rows),
    left.length > 1 && h("button", { class: "more", type: "button", disabled: busy, onclick: () => add(left) }, `Add all ${left.length}`),
    busy && h("p", { class: "muted", role: "status" }, "Adding …"),
    problem && h("p", { class: "warn" }, [problem.error, problem.hint].filter(Boolean).join(" · ")),
    rows.length > 0 && h("p", { class: "muted" }, "In the raw graph, with scores and pruning of the whole:"),
    rows.length > 0 && commandBlock(expandCommand(node, rows.length)),
  );
}
