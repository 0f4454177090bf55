/* The parts of the dialog for a new graph: each has `elements` and `render(found, failure)`; they share one form. */

import { h, icon } from "../dom.js";
import { percent, showToken } from "../format.js";
import { SETTINGS, defaultTargets, differenceOf, lengthInWords, targetOf, toggled, typedTarget } from "../new-graph.js";

/** The prompt, in the model's chat template or not, and the tokens that the model reads. */
export function promptPart(form, change) {
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
  const chatOnly = [["system ", system], ["the answer begins ", prefill]].map(([title, field]) =>
    h("label", { class: "chat-part" }, h("span", { class: "muted" }, title), field),
  );
  const chatParts = h("div", { class: "new-chat" }, h("label", {}, chat, " in the model's chat template"), chatOnly);
  const status = h("p", { class: "muted new-status", role: "status" });
  const tokens = h("div", { class: "new-tokens", "aria-label": "Tokens of the prompt" });
  return Object.freeze({
    elements: [h("label", { for: "new-prompt", class: "muted" }, "Prompt"), prompt, chatParts, status, tokens],
    focus() {
      prompt.focus();
      prompt.select();
    },
    fill() {
      [prompt.value, chat.checked, system.value, prefill.value] = [form.prompt, form.chat, form.system, form.prefill];
    },
    render(found) {
      const { about, draft } = found;
      chatParts.hidden = !about?.chat;
      for (const part of chatOnly) part.hidden = !form.chat;
      status.textContent = statusLine(found, form);
      tokens.replaceChildren(...(draft?.tokens ?? []).map((token, place) => tokenChip(token, place < draft.zeroed)));
    },
  });
}

/** What to explain: predicted tokens, differences of two, or what somebody types. */
export function targetsPart(form, change) {
  let first = null;
  let last = {};
  const predictions = h("div", { class: "new-predictions" });
  const differences = h("input", { type: "checkbox", onchange: () => wait(null) });
  const chosen = h("div", { class: "new-targets" });
  const typed = h("input", {
    class: "text-field",
    "aria-label": "Another target",
    placeholder: "another token, id:123, A - B, feature:12/3456@9",
    onkeydown: (event) => {
      if (event.key !== "Enter" || event.ctrlKey || event.metaKey) return;
      event.preventDefault();
      addTyped();
    },
  });
  const completion = h("input", {
    class: "text-field",
    "aria-label": "A whole answer",
    placeholder: "or a whole answer, as it follows the prompt, each of its tokens explained",
    title: "Begin with the space that a word has in text",
    oninput: () => change({ completion: completion.value, targets: [] }),
  });
  const toggle = (target) => change({ targets: toggled(form.targets, target), completion: "" });

  function addTyped() {
    if (typed.value.trim() === "") return;
    toggle(typedTarget(typed.value));
    typed.value = "";
  }

  /** The first token of a difference waits for the second. */
  function wait(entry) {
    first = entry;
    render(last);
  }

  function choose(entry) {
    if (!differences.checked) return toggle(targetOf(entry));
    if (first === null || first.id === entry.id) return wait(first === null ? entry : null);
    const pair = differenceOf(first, entry);
    first = null;
    toggle(pair);
  }

  function render(found) {
    last = found;
    predictions.replaceChildren(...predictionRows(found, form, first, choose));
    if (completion.value !== form.completion) completion.value = form.completion;
    chosen.replaceChildren(...targetChips(form, found.about, toggle));
  }

  const elements = [
    h("h3", {}, "Explain"),
    h("p", { class: "muted", id: "next-tokens" }, "The model's most likely next tokens: click those that the graph should explain."),
    predictions,
    h("label", { class: "muted" }, differences, " choose two: the first minus the second"),
    h("div", { class: "new-line" }, typed, h("button", { class: "small", type: "button", onclick: addTyped }, "Add")),
    h("div", { class: "new-line" }, completion),
    chosen,
  ];
  return Object.freeze({ elements, render });
}

/** Sizes and thresholds, with the server's own values where nothing is typed. */
export function settingsPart(form, change) {
  const fields = SETTINGS.map((setting) => [setting.name, settingField(setting, form, change)]);
  const grid = h("div", { class: "setting-grid" }, ...fields.map(([, field]) => field.element));
  return Object.freeze({
    elements: [h("details", { class: "new-settings" }, h("summary", {}, "Settings"), grid)],
    render({ about }) {
      for (const [name, field] of fields) field.setDefault(about?.defaults[name]);
    },
  });
}

/** The name of the file. `take(name)` puts a proposed one in. */
export function namePart(form, change) {
  const slug = h("input", { class: "text-field", id: "new-slug", spellcheck: "false", oninput: () => change({ slug: slug.value }) });
  const note = h("span", { class: "muted" });
  return Object.freeze({
    elements: [h("h3", {}, h("label", { for: "new-slug" }, "Name of the file")), h("div", { class: "new-line" }, slug, note)],
    take(name) {
      slug.value = name;
      change({ slug: name });
    },
    fill() {
      slug.value = form.slug;
    },
    render({ draft }) {
      slug.placeholder = draft?.slug ?? draft?.problem?.proposal ?? "";
      note.textContent = draft?.replaces ? "replaces the graph of this prompt; pins and labels of remaining nodes stay" : "";
    },
  });
}

/** The command that does the same; `copy(text)` says whether the browser lets the page copy. */
export function commandPart(copy) {
  const command = h("pre", { class: "command" });
  const copied = h("button", { class: "small", type: "button", onclick: onCopy }, "Copy");
  const element = h("details", { class: "new-command" }, h("summary", {}, "The same in a terminal"), command, copied);

  async function onCopy() {
    copied.textContent = (await copy(command.textContent)) ? "Copied" : "Select it and copy it manually";
    window.setTimeout(() => (copied.textContent = "Copy"), 1500);
  }

  return Object.freeze({
    elements: [element],
    render({ draft }) {
      command.textContent = draft?.command ?? "";
      element.hidden = !draft?.command;
    },
  });
}

/** What is wrong, and the buttons. `takeName(name)` takes the name that the server proposes. */
export function footPart({ start, close, takeName, isReady }) {
  const problem = h("div", { class: "new-problem", role: "alert" });
  const trace = h("button", { class: "small primary", type: "button", title: "Ctrl-Enter", onclick: start }, "Trace");
  const buttons = h("div", { class: "new-buttons" }, h("button", { class: "small", type: "button", onclick: close }, "Close"), trace);
  return Object.freeze({
    elements: [h("div", { class: "new-foot" }, problem, buttons)],
    render({ draft }, failure) {
      problem.replaceChildren(...problemLines(failure ?? draft?.problem, takeName));
      trace.disabled = !isReady();
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
  if (form.prompt.trim() === "") return "Enter a prompt.";
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
  if (form.completion.trim()) return [];
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
