/* The dialog in which a new prompt is traced: the prompt as the model reads it, what to explain, settings, a name. */

import { h, icon } from "../dom.js";
import { percent, showToken } from "../format.js";
import {
  SETTINGS,
  bodyOf,
  defaultTargets,
  differenceOf,
  emptyForm,
  lengthInWords,
  targetOf,
  toggled,
  typedTarget,
} from "../new-graph.js";
import { createProspect } from "../prospect.js";

/**
 * A dialog over the api's `traces` and `runs`. `onStart(run, {slug, prompt})` hears of a trace that is in the queue.
 *
 * `open()` shows it as it was left, `fail(error)` with what went wrong.
 */
export function newGraphDialog(store, api, { onStart }) {
  const form = emptyForm();
  const view = createView(form, { change, start, close: () => dialog.close(), copy });
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

  async function copy(text) {
    try {
      await navigator.clipboard.writeText(text);
      return true;
    } catch {
      return false;
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

function createView(form, { change, start, close, copy }) {
  let found = { model: null, about: null, draft: null, predictions: null, waiting: false };
  let failure = null;
  let first = null;

  const prompt = h("textarea", {
    class: "text-field",
    id: "new-prompt",
    rows: "3",
    spellcheck: "false",
    dir: "auto",
    oninput: () => change({ prompt: prompt.value }),
  });
  const chat = h("input", { type: "checkbox", onchange: () => change({ chat: chat.checked }) });
  const [system, prefill] = ["system", "prefill"].map((name) => {
    const field = h("input", { class: "text-field", oninput: () => change({ [name]: field.value }) });
    return field;
  });
  const chatParts = h(
    "div",
    { class: "new-chat" },
    h("label", {}, chat, " in the model's chat template"),
    h("label", { class: "chat-part" }, h("span", { class: "muted" }, "system "), system),
    h("label", { class: "chat-part" }, h("span", { class: "muted" }, "the answer begins "), prefill),
  );
  const status = h("p", { class: "muted new-status", role: "status" });
  const tokens = h("div", { class: "new-tokens", "aria-label": "Tokens of the prompt" });
  const predictions = h("div", { class: "new-predictions" });
  const differences = h("input", {
    type: "checkbox",
    onchange: () => {
      first = null;
      render();
    },
  });
  const chosen = h("div", { class: "new-targets" });
  const typed = h("input", {
    class: "text-field",
    "aria-label": "Another target",
    placeholder: "another token, id:123, or A - B",
    onkeydown: (event) => {
      if (event.key !== "Enter" || event.ctrlKey || event.metaKey) return;
      event.preventDefault();
      addTyped();
    },
  });
  const fields = new Map(SETTINGS.map((setting) => [setting.name, settingField(setting, form, change)]));
  const slug = h("input", { class: "text-field", id: "new-slug", spellcheck: "false", oninput: () => change({ slug: slug.value }) });
  const slugNote = h("span", { class: "muted" });
  const command = h("pre", { class: "command" });
  const copied = h("button", { class: "small", type: "button", onclick: onCopy }, "Copy");
  const problem = h("div", { class: "new-problem", role: "alert" });
  const trace = h("button", { class: "small primary", type: "button", title: "Ctrl-Enter", onclick: start }, "Trace");

  const element = h(
    "div",
    {},
    h("h2", {}, "New graph"),
    h("label", { for: "new-prompt", class: "muted" }, "Prompt"),
    prompt,
    chatParts,
    status,
    tokens,
    h("h3", {}, "Explain"),
    h("p", { class: "muted", id: "next-tokens" }, "The model's likeliest next tokens: click those that the graph shall explain."),
    predictions,
    h("label", { class: "muted" }, differences, " choose two: the first minus the second"),
    h("div", { class: "new-line" }, typed, h("button", { class: "small", type: "button", onclick: addTyped }, "Add")),
    chosen,
    h(
      "details",
      { class: "new-settings" },
      h("summary", {}, "Settings"),
      h("div", { class: "setting-grid" }, ...[...fields.values()].map((field) => field.element)),
    ),
    h("h3", {}, h("label", { for: "new-slug" }, "Name of the file")),
    h("div", { class: "new-line" }, slug, slugNote),
    h("details", { class: "new-command" }, h("summary", {}, "The same in a terminal"), command, copied),
    h(
      "div",
      { class: "new-foot" },
      problem,
      h("div", { class: "new-buttons" }, h("button", { class: "small", type: "button", onclick: close }, "Close"), trace),
    ),
  );

  function addTyped() {
    if (typed.value.trim() === "") return;
    change({ targets: toggled(form.targets, typedTarget(typed.value)) });
    typed.value = "";
  }

  function choose(entry) {
    if (!differences.checked) return change({ targets: toggled(form.targets, targetOf(entry)) });
    if (first === null || first.id === entry.id) first = first === null ? entry : null;
    else {
      const pair = differenceOf(first, entry);
      first = null;
      return change({ targets: toggled(form.targets, pair) });
    }
    render();
  }

  async function onCopy() {
    copied.textContent = (await copy(command.textContent)) ? "Copied" : "Select it, and copy it yourself";
    window.setTimeout(() => (copied.textContent = "Copy"), 1500);
  }

  const isReady = () => form.prompt.trim() !== "" && !found.draft?.problem && !["failed", "none"].includes(found.model?.state);

  function render() {
    const { about, draft } = found;
    chatParts.hidden = !about?.chat;
    for (const part of chatParts.querySelectorAll(".chat-part")) part.hidden = !form.chat;
    status.textContent = statusLine(found, form);
    tokens.replaceChildren(...(draft?.tokens ?? []).map((token, place) => tokenChip(token, place < draft.zeroed)));
    predictions.replaceChildren(...predictionRows(found, form, first, choose));
    chosen.replaceChildren(...targetChips(form, about, (target) => change({ targets: toggled(form.targets, target) })));
    for (const [name, field] of fields) field.setDefault(about?.defaults[name]);
    const proposed = draft?.slug ?? draft?.problem?.proposal ?? "";
    slug.placeholder = proposed;
    slugNote.textContent = draft?.replaces ? "replaces the graph of this prompt; pins and labels stay as far as their nodes remain" : "";
    command.textContent = draft?.command ?? "";
    command.parentElement.hidden = !draft?.command;
    problem.replaceChildren(...problemLines(failure ?? draft?.problem, (name) => takeName(name)));
    trace.disabled = !isReady();
  }

  function takeName(name) {
    slug.value = name;
    change({ slug: name });
  }

  return Object.freeze({
    element,
    isReady,
    focus: () => {
      prompt.focus();
      prompt.select();
    },
    fill() {
      [prompt.value, chat.checked, system.value, prefill.value, slug.value] = [form.prompt, form.chat, form.system, form.prefill, form.slug];
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

function settingField({ name, title, ...limits }, form, change) {
  const field = h("input", {
    class: "count-field",
    type: "number",
    ...Object.fromEntries(Object.entries(limits).map(([key, value]) => [key, String(value)])),
    oninput: () => change({ settings: { ...form.settings, [name]: field.value } }),
  });
  const element = h("label", {}, field, " ", h("span", { class: "muted" }, title));
  return { element, setDefault: (value) => (field.placeholder = value === undefined ? "" : String(value)) };
}

function statusLine({ model, about, draft, waiting }, form) {
  if (model?.state === "loading") return `The model: ${model.phase || "waiting"} … A trace that is asked for now begins after that.`;
  if (model?.state === "failed") return [model.error?.error, model.error?.hint].filter(Boolean).join(" – ");
  if (form.prompt.trim() === "") return "What shall the model continue?";
  if (!draft?.tokens) return waiting ? "…" : "";
  return [lengthInWords(draft.tokens, about?.n_ctx), ...draft.notes].join(" · ");
}

const tokenChip = ({ id, text }, isZeroed) =>
  h(
    "span",
    { class: `token-chip mono${isZeroed ? " muted" : ""}`, dir: "auto", title: isZeroed ? `${id}: nothing is traced here` : String(id) },
    showToken(text),
  );

function predictionRows({ predictions, thinking, draft }, form, first, choose) {
  if (!predictions) return [h("span", { class: "muted" }, draft?.tokens && thinking ? thinking : "")];
  const most = Math.max(...predictions.map(({ probability }) => probability), 1e-9);
  return predictions.map((entry) =>
    h(
      "button",
      {
        type: "button",
        class: "prediction",
        "aria-pressed": String(form.targets.some(({ text }) => text === entry.target) || first?.id === entry.id),
        title: `token ${entry.id}`,
        onclick: () => choose(entry),
      },
      h("span", { class: "mono prediction-token", dir: "auto" }, showToken(entry.token)),
      h("span", { class: "shares", "aria-hidden": "true" }, h("span", { class: "share share-after", style: { width: `${(100 * entry.probability) / most}%` } })),
      h("span", { class: "muted" }, percent(entry.probability)),
    ),
  );
}

function targetChips(form, about, remove) {
  if (form.targets.length === 0) return [h("span", { class: "muted" }, about ? defaultTargets({ ...about.defaults, ...filled(form.settings) }) : "")];
  return form.targets.map((target) =>
    h(
      "span",
      { class: "target-chip" },
      h("span", { class: "mono", dir: "auto" }, target.label),
      h(
        "button",
        { class: "small quiet", type: "button", "aria-label": `Don't explain ${target.label}`, onclick: () => remove(target) },
        icon("cross"),
      ),
    ),
  );
}

const filled = (settings) => Object.fromEntries(Object.entries(settings).filter(([, text]) => text.trim() !== ""));

function problemLines(problem, takeName) {
  if (!problem) return [];
  const lines = [h("p", { class: "warn" }, problem.error)];
  if (problem.hint && !problem.proposal) lines.push(h("p", { class: "muted" }, problem.hint));
  if (problem.proposal)
    lines.push(h("button", { class: "small", type: "button", onclick: () => takeName(problem.proposal) }, `Use ${problem.proposal}`));
  return lines;
}
