/* A new graph: what the form's fields mean as a request, targets, and the server's answers in words. Pure. */

import { percent, showToken } from "./format.js";

/** Fields of the settings: name in the request, title, and what a number field needs. */
export const SETTINGS = Object.freeze([
  { name: "max_feature_nodes", title: "feature nodes, at most (0: all)", min: 0, step: 1 },
  { name: "max_n_logits", title: "most likely tokens, at most", min: 1, step: 1 },
  { name: "desired_logit_prob", title: "until their probabilities sum to", min: 0, max: 1, step: "any" },
  { name: "batch_size", title: "features selected per batch", min: 1, step: 1 },
  { name: "node_threshold", title: "node threshold of the file", min: 0, max: 1, step: "any" },
  { name: "edge_threshold", title: "link threshold of the file", min: 0, max: 1, step: "any" },
]);

/** What the form holds at first. `settings` are texts, as fields have them. */
export function emptyForm() {
  return { prompt: "", chat: false, system: "", prefill: "", targets: [], completion: "", slug: "", settings: {} };
}

/** The body of `POST api/traces`: what is left empty isn't sent. */
export function bodyOf(form) {
  const body = { prompt: form.prompt };
  if (form.chat) body.chat = true;
  for (const name of ["system", "prefill"]) if (form.chat && form[name]) body[name] = form[name];
  if (form.targets.length > 0) body.targets = form.targets.map(({ text }) => text);
  if (form.completion.trim()) body.completion = form.completion;
  if (form.slug.trim()) body.slug = form.slug.trim();
  for (const { name } of SETTINGS) {
    const text = (form.settings[name] ?? "").trim();
    if (text !== "" && Number.isFinite(Number(text))) body[name] = Number(text);
  }
  return body;
}

/** A target as a page shows it: `{text, label}`. A predicted token brings the text that means it. */
export const targetOf = ({ token, target }) => ({ text: target, label: showToken(token) });

/** The difference of two predicted tokens. */
export const differenceOf = (first, second) => ({
  text: `${first.target} - ${second.target}`,
  label: `${showToken(first.token)} − ${showToken(second.token)}`,
});

/** A target as typed: the server parses it. */
export const typedTarget = (text) => ({ text, label: showToken(text) });

/** The targets with one more, or without it if it's there. */
export function toggled(targets, target) {
  const rest = targets.filter(({ text }) => text !== target.text);
  return rest.length < targets.length ? rest : [...targets, target];
}

/** What is explained if no target is chosen. */
export function defaultTargets(settings) {
  const share = percent(Number(settings.desired_logit_prob));
  return `The most likely tokens: at most ${settings.max_n_logits}, until their probabilities sum to ${share}.`;
}

/** How long the prompt is. */
export function lengthInWords(tokens, most) {
  const count = `${tokens.length} ${tokens.length === 1 ? "token" : "tokens"}`;
  return Number.isFinite(most) ? `${count} of ${most.toLocaleString("en")} at most` : count;
}

/** A run that waits or is loading its model, as the strip tells it; and one that goes on. */
export function runAsTrace(run, seconds) {
  const waits = run.state === "queued" && run.ahead > 0;
  const phase = waits ? `waiting, ${run.ahead} before it` : run.phase || "waiting";
  return { state: "running", run: run.id, phase, done: run.done, total: waits ? null : run.total, seconds, version: 0 };
}

/**
 * The calls of the api that `followTrace` makes, for a run that this page has put into the queue. What `liveTrace` gives at the end
 * has the state `done` with the `slug` and perhaps a `note`, `failed` with `error` and `hint`, or `cancelled`.
 */
export function runFeed(api, id, clock = () => performance.now()) {
  const begun = clock();
  const seconds = () => (clock() - begun) / 1000;
  return Object.freeze({
    async liveTrace() {
      const run = await api.runs.read(id);
      if (run.state === "done") return { state: "done", slug: run.result.slug, note: run.result.note };
      if (run.state === "failed") return { state: "failed", ...run.error };
      if (run.state === "cancelled") return { state: "cancelled" };
      const live = run.state === "running" ? await api.liveTrace() : null;
      return live?.run === id ? { ...live, state: "running" } : runAsTrace(run, seconds());
    },
    liveGraph: api.liveGraph,
  });
}
