/* The server's answers on a request while it's being written: its draft at once, the next tokens when typing pauses. */

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
  const predictor = createPredictor(api, (milliseconds) => new Promise((resolve) => later(resolve, milliseconds)));

  function set(patch) {
    found = Object.freeze({ ...found, ...patch });
    onChange(found);
  }

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
    predictor.drop();
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

  async function predict(mine, said) {
    const run = await predictor.ask(body, { isWanted: () => mine === latest, say: (thinking) => set({ thinking }) });
    if (run === null) return;
    predicted = said;
    set({ predictions: run.result?.top_predictions ?? null, thinking: run.error?.error ?? "" });
  }

  return Object.freeze({ ask, pause, found: () => found });
}

/**
 * The next tokens, in the queue of the model: they come when it has nothing better to do. `ask` gives the run at its end, null where it is
 * no longer wanted; `say(text)` hears why it takes time. `drop()` cancels the run that is under way.
 */
function createPredictor(api, rest) {
  let run = null;

  function drop() {
    if (run !== null) api.runs.cancel(run).catch(() => {});
    run = null;
  }

  async function ask(body, { isWanted, say }) {
    drop();
    say("The most likely next tokens …");
    await rest(PREDICTION_PAUSE);
    if (!isWanted()) return null;
    let now = await api.traces.predict(body);
    run = now.id;
    while (["queued", "running"].includes(now.state)) {
      const busy = now.ahead > 0 || (now.state === "queued" && now.phase !== "starting");
      say(busy ? "The most likely next tokens will appear when the model is free …" : "The most likely next tokens …");
      await rest(POLL);
      if (!isWanted()) return null;
      now = await api.runs.read(now.id);
    }
    run = null;
    return isWanted() ? now : null;
  }

  return Object.freeze({ ask, drop });
}
