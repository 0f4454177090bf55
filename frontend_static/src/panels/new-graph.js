/* The dialog in which a new prompt is traced: the prompt as the model reads it, what to explain, settings, a name. */

import { h } from "../dom.js";
import { bodyOf, emptyForm } from "../new-graph.js";
import { createProspect } from "../prospect.js";
import { commandPart, footPart, namePart, promptPart, settingsPart, targetsPart } from "./new-graph-parts.js";

/**
 * A dialog over the api's `traces` and `runs`. `onStart(run, {slug, prompt})` hears of a trace that is in the queue.
 *
 * `open()` shows it as it was left, `fail(error)` with what went wrong.
 */
export function newGraphDialog(store, api, { onStart }) {
  const form = emptyForm();
  const view = createView(form, { change, start, close: () => dialog.close() });
  const dialog = h("dialog", { class: "sheet new-graph", "aria-label": "New graph" }, view.element);
  const prospect = createProspect(api, { onChange: (found) => view.show(found) });
  let failure = null;

  dialog.addEventListener("click", (event) => event.target === dialog && dialog.close());
  dialog.addEventListener("close", () => prospect.pause());
  dialog.addEventListener("keydown", (event) => {
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) start();
  });

  function change(patch) {
    Object.assign(form, patch);
    failure = null;
    view.renew({ failure });
    prospect.ask(bodyOf(form));
  }

  async function start() {
    if (!view.isReady()) return;
    const body = bodyOf(form);
    try {
      const { slug } = await api.traces.draft(body);
      const run = await api.traces.start(body);
      dialog.close();
      form.slug = "";
      onStart(run, { slug: slug ?? body.slug, prompt: body.prompt });
    } catch (error) {
      failure = { error: error.message, hint: error.hint };
      view.renew({ failure });
    }
  }

  function open() {
    if (form.prompt === "") Object.assign(form, { prompt: plainPrompt(store.get("graph")) });
    view.fill();
    view.renew({ failure });
    dialog.showModal();
    view.focus();
    prospect.ask(bodyOf(form), { now: true });
  }

  function fail(error) {
    failure = error;
    if (dialog.open) view.renew({ failure });
    else open();
  }

  return Object.freeze({ dialog, open, fail });
}

/** The prompt of the graph that is shown without its first special token: most prompts are variations of another. */
function plainPrompt(graph) {
  const { prompt = "", prompt_tokens: tokens = [] } = graph?.metadata ?? {};
  const first = tokens[0] ?? "";
  return /^<[^<>]*>$/.test(first) && prompt.startsWith(first) ? prompt.slice(first.length) : prompt;
}

async function copy(text) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    return false;
  }
}

/** The dialog's content: `show(found)` what the server says, `renew({failure})` after the form has changed, `fill()` from the form. */
function createView(form, { change, start, close }) {
  let found = { model: null, about: null, draft: null, predictions: null, waiting: false };
  let failure = null;
  const isReady = () => form.prompt.trim() !== "" && !found.draft?.problem && !["failed", "none"].includes(found.model?.state);

  const [prompt, name] = [promptPart(form, change), namePart(form, change)];
  const foot = footPart({ start, close, takeName: name.take, isReady });
  const parts = [prompt, targetsPart(form, change), settingsPart(form, change), name, commandPart(copy), foot];
  const element = h("div", {}, h("h2", {}, "New graph"), ...parts.flatMap(({ elements }) => elements));

  function render() {
    for (const part of parts) part.render(found, failure);
  }

  return Object.freeze({
    element,
    isReady,
    focus: prompt.focus,
    fill() {
      prompt.fill();
      name.fill();
    },
    renew(next) {
      failure = next.failure;
      render();
    },
    show(next) {
      found = next;
      render();
    },
  });
}
