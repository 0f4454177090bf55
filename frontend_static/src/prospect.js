/* What the server says about a request while it's being written: its draft at once, the next tokens when the typing rests. */

const DRAFT_PAUSE = 200;
const PREDICTION_PAUSE = 500;
const POLL = 250;
const LOADING_POLL = 1000;

/**
 * `ask(body)` for the latest request; `onChange(found)` hears of every answer, `found()` is the last: `model`, `about` (what may be asked),
 * `draft`, `predictions` (null until they are known), `thinking` (why not yet), `waiting`. `pause()` ends asking until the next `ask`.
 */
export function createProspect(api, { onChange, later = setTimeout, soon = clearTimeout }) {
  let found = { model: null, about: null, draft: null, predictions: null, thinking: "", waiting: false };
  let latest = 0;
  let timer = 0;
  let body = null;
  let predicted = "";
  let run = null;

  function set(patch) {
    found = Object.freeze({ ...found, ...patch });
    onChange(found);
  }

  const rest = (milliseconds) => new Promise((resolve) => later(resolve, milliseconds));

  function ask(next, { now = false } = {}) {
    body = next;
    latest += 1;
    soon(timer);
    set({ waiting: true });
    timer = later(() => look(latest), now ? 0 : DRAFT_PAUSE);
  }

  function pause() {
    latest += 1;
    soon(timer);
    drop();
  }

  async function look(mine) {
    try {
      const [model, about] = await Promise.all([api.runs.model(), api.traces.describe()]);
      const draft = about.possible && body.prompt.trim() ? await api.traces.draft(body) : null;
      if (mine !== latest) return;
      const said = draft?.tokens ? draft.tokens.map(({ id }) => id).join() : "";
      if (said !== predicted) set({ predictions: null });
      set({ model, about, draft, waiting: false });
      if (model.state === "loading") {
        timer = later(() => look(mine), LOADING_POLL);
        return;
      }
      if (said !== "" && (said !== predicted || found.predictions === null)) await predict(mine, said);
    } catch (error) {
      if (mine !== latest) return;
      set({ waiting: false, draft: { ...found.draft, problem: { part: "prompt", error: error.message, hint: error.hint ?? "" } } });
    }
  }

  /** The next tokens, in the queue of the model: they come when it has nothing better to do. */
  async function predict(mine, said) {
    drop();
    set({ thinking: "The likeliest next tokens …" });
    await rest(PREDICTION_PAUSE);
    if (mine !== latest) return;
    let now = await api.traces.predict(body);
    run = now.id;
    while (["queued", "running"].includes(now.state)) {
      const busy = now.ahead > 0 || (now.state === "queued" && now.phase !== "starting");
      set({ thinking: busy ? "The likeliest next tokens come when the model is free …" : "The likeliest next tokens …" });
      await rest(POLL);
      if (mine !== latest) return;
      now = await api.runs.read(now.id);
    }
    run = null;
    if (mine !== latest) return;
    predicted = said;
    set({ predictions: now.result?.top_predictions ?? null, thinking: now.error?.error ?? "" });
  }

  function drop() {
    if (run !== null) api.runs.cancel(run).catch(() => {});
    run = null;
  }

  return Object.freeze({ ask, pause, found: () => found });
}
