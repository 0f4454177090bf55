import assert from "node:assert/strict";
import { test } from "node:test";

import { createProspect } from "../../frontend_static/src/prospect.js";

/** A server that knows words as tokens, and whose model is loaded after `loading` looks. */
function server({ loading = 0, problem = null } = {}) {
  const calls = [];
  let looks = 0;
  return {
    calls,
    traces: {
      describe: async () => ({ possible: true, defaults: {} }),
      async draft({ prompt }) {
        calls.push(`draft ${prompt}`);
        if (prompt === "broken") throw new Error("The server doesn't answer");
        const tokens = looks > loading ? prompt.split(" ").map((text) => ({ id: text.length, text })) : null;
        return { tokens, problem };
      },
      async predict({ prompt }) {
        calls.push(`predict ${prompt}`);
        return { id: prompt, state: "queued", ahead: 1 };
      },
    },
    runs: {
      async model() {
        looks += 1;
        return { state: looks > loading ? "ready" : "loading" };
      },
      read: async (id) => ({ id, state: "done", result: { top_predictions: [{ token: id }] } }),
      async cancel(id) {
        calls.push(`cancel ${id}`);
      },
    },
  };
}

/** A prospect whose pauses are short, and `until(check)` on what it finds. */
function asked(api) {
  const waits = [];
  const prospect = createProspect(api, {
    onChange: (found) => waits.filter(([check]) => check(found)).forEach(([, resolve]) => resolve(found)),
    later: (next) => setImmediate(next),
    soon: (timer) => timer && clearImmediate(timer),
  });
  const until = (check) => new Promise((resolve) => waits.push([check, resolve]));
  return { prospect, until };
}

test("a prompt's tokens, then the next tokens", async () => {
  const api = server();
  const { prospect, until } = asked(api);
  const end = until(({ predictions }) => predictions !== null);
  prospect.ask({ prompt: "one three" });
  const found = await end;
  assert.deepEqual(found.draft.tokens.map(({ id }) => id), [3, 5]);
  assert.deepEqual(found.predictions, [{ token: "one three" }]);
});

test("the same tokens aren't looked at twice, other ones are", async () => {
  const api = server();
  const { prospect, until } = asked(api);
  let end = until(({ predictions }) => predictions !== null);
  prospect.ask({ prompt: "one" });
  await end;
  end = until(({ waiting }) => !waiting);
  prospect.ask({ prompt: "one", slug: "other" });
  await end;
  await new Promise((resolve) => setTimeout(resolve, 20));
  assert.equal(api.calls.filter((call) => call.startsWith("predict")).length, 1);
  end = until(({ predictions }) => predictions?.[0].token === "other");
  prospect.ask({ prompt: "other" });
  await end;
});

test("only the latest request counts, and one that nobody waits for is cancelled", async () => {
  const api = server();
  const { prospect, until } = asked(api);
  const begun = until(({ thinking }) => thinking.includes("free"));
  prospect.ask({ prompt: "first" });
  await begun;
  const end = until(({ predictions }) => predictions?.[0].token === "the second");
  prospect.ask({ prompt: "the second" });
  await end;
  prospect.ask({ prompt: "third" });
  prospect.pause();
  await new Promise((resolve) => setTimeout(resolve, 20));
  assert.ok(!api.calls.includes("draft third"));
  assert.ok(api.calls.includes("cancel first"));
});

test("a model that is loading is waited for", async () => {
  const api = server({ loading: 2 });
  const { prospect, until } = asked(api);
  const end = until(({ predictions }) => predictions !== null);
  prospect.ask({ prompt: "one" });
  assert.equal((await until(({ model }) => model !== null)).model.state, "loading");
  await end;
});

test("an empty prompt asks for nothing, and a failure is a problem", async () => {
  const api = server();
  const { prospect, until } = asked(api);
  const seen = until(({ about }) => about !== null);
  prospect.ask({ prompt: " " });
  assert.equal((await seen).draft, null);
  assert.deepEqual(api.calls, []);
  const end = until(({ draft }) => draft?.problem);
  prospect.ask({ prompt: "broken" });
  assert.equal((await end).draft.problem.error, "The server doesn't answer");
});
