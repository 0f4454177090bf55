/* The only file that talks to the server. URLs are relative to the page, so that the viewer works behind a proxy's path. */

/** A reply that isn't a success; `status` 0 means that no reply came. */
export class ApiError extends Error {
  constructor(status, message, hint) {
    super(message);
    this.status = status;
    this.hint = hint ?? "";
  }
}

export function createApi(base) {
  const address = (...parts) => new URL(parts.map(encodeURIComponent).join("/"), base);

  async function request(url, options = {}) {
    let reply;
    try {
      reply = await fetch(url, options);
    } catch {
      throw new ApiError(0, "The server doesn't answer", "Is circuit-tracer still running?");
    }
    if (!reply.ok) throw await failure(reply);
    return reply;
  }

  const post = async (body, ...parts) => {
    const headers = { "Content-Type": "application/json" };
    return (await request(address(...parts), { method: "POST", headers, body: JSON.stringify(body) })).json();
  };

  return Object.freeze({
    /** `{graphs, errors}`: metadata of every graph in the folder, and files that can't be read. */
    listGraphs: async () => (await request(address("api", "graphs"))).json(),

    /** `{json, etag}` of one graph file. */
    async readGraph(slug) {
      const reply = await request(address("api", "graphs", slug));
      return { json: await reply.json(), etag: reply.headers.get("etag") };
    },

    /**
     * `{bytes, start, tag}` of a graph's compact form: from a byte on, or up to one. It starts at 0 where the server doesn't know ranges
     * or the graph has changed since `etag`. Throws where there is no such form.
     */
    async readCompact(slug, { from = 0, to = null, etag = null }) {
      const headers = { Range: `bytes=${from}-${to === null ? "" : to - 1}` };
      if (etag) headers["If-Range"] = etag;
      const reply = await request(address("api", "graphs", slug, "compact"), { headers });
      if (reply.status === 204) throw new ApiError(204, "This graph has no compact form");
      const start = reply.status === 206 ? from : 0;
      return { bytes: await reply.arrayBuffer(), start, tag: reply.headers.get("etag") };
    },

    /** `{metadata, qParams, etag}` of a graph's file, or null if it is still the one with this tag. */
    async readView(slug, etag = null) {
      const options = etag ? { headers: { "If-None-Match": etag }, cache: "no-store" } : { cache: "no-store" };
      const reply = await fetch(address("api", "graphs", slug, "view"), options);
      if (reply.status === 304) return null;
      if (!reply.ok) throw await failure(reply);
      return { ...(await reply.json()), etag: reply.headers.get("etag") };
    },

    /** Every text, number and truth value of a graph's nodes, in their order. */
    readNodes: async (slug) => (await (await request(address("api", "graphs", slug, "nodes"))).json()).nodes,

    /** Saves `qParams`; returns the new tag. Status 412 means that someone else saved first. */
    async saveAnnotations(slug, etag, params, { keepalive = false } = {}) {
      const reply = await request(address("api", "graphs", slug, "annotations"), {
        method: "PUT",
        headers: { "Content-Type": "application/json", "If-Match": etag },
        body: JSON.stringify(params),
        keepalive,
      });
      return reply.headers.get("etag");
    },

    /** Changes to the folder: a graph file added, renamed, copied, deleted and brought back. */
    library: Object.freeze({
      upload: async (text) => (await request(address("api", "graphs"), { method: "POST", headers: { "Content-Type": "application/json" }, body: text })).json(),
      async rename(slug, name) {
        const options = { method: "PATCH", headers: { "Content-Type": "application/json" }, body: JSON.stringify({ slug: name }) };
        return (await request(address("api", "graphs", slug), options)).json();
      },
      duplicate: (slug) => post({}, "api", "graphs", slug, "duplicate"),
      remove: async (slug) => (await request(address("api", "graphs", slug), { method: "DELETE" })).json(),
      restore: (slug) => post({}, "api", "graphs", slug, "restore"),
    }),

    /** Two graphs of the folder as one, `{a, b, align}`; many as one, `{slug, graphs, min_frequency}`. Both return the new graph's `slug`. */
    comparisons: Object.freeze({
      diff: (body) => post(body, "api", "diff"),
      merge: (body) => post(body, "api", "merge"),
    }),

    /** One HTML page with the graph and its annotations in it, as a Blob. */
    readPage: async (slug) => (await request(address("api", "graphs", slug, "page"))).blob(),

    /** Progress of a running trace, `{state, slug, phase, done, total, seconds, version, …}`; its state is `none` without one. */
    liveTrace: async () => (await request(address("api", "live"), { signal: AbortSignal.timeout(5000) })).json(),

    /** The graph of the rows known so far, or null if the trace has just ended. */
    async liveGraph() {
      const reply = await fetch(address("api", "live", "graph"));
      return reply.ok ? reply.json() : null;
    },

    /** Proposed labels of the graph's features, `{code: {text, provenance, confidence}}`. */
    proposedLabels: async (slug) =>
      (await (await request(address("api", "graphs", slug, "labels"))).json()).labels,

    /** All labels of a graph's transcoder set that people share, as the file to hand on; and such a file taken in, `{taken, kept}`. */
    sharedLabels: async (slug) => (await request(address("api", "graphs", slug, "labels", "shared"))).json(),
    async takeLabels(slug, labels, { replace = false } = {}) {
      const url = address("api", "graphs", slug, "labels", "shared");
      if (replace) url.searchParams.set("replace", "1");
      const options = { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(labels) };
      return (await request(url, options)).json();
    },

    /** The server's model, `{state: "none"}` if it has none; and runs of edits on it. */
    runs: Object.freeze({
      model: async () => (await request(address("api", "model"))).json(),
      start: (body) => post(body, "api", "runs"),
      read: async (id) => (await request(address("api", "runs", id))).json(),
      cancel: async (id) => (await request(address("api", "runs", id), { method: "DELETE" })).json(),
    }),

    /** Heads kept with a graph's links, `[source, target, weight, heads, rest]` each; runs that ask the model about heads of links and about a head's look. */
    attention: Object.freeze({
      stored: async (slug) => (await (await request(address("api", "graphs", slug, "heads"))).json()).links,
      heads: (body) => post(body, "api", "attention", "heads"),
      look: (body) => post(body, "api", "attention", "qk"),
    }),

    /** A run that asks the model which inputs of a node aren't in the file. */
    hidden: (body) => post(body, "api", "hidden"),

    /** A run that asks the model for nodes that aren't in the file, with their links. */
    expand: (body) => post(body, "api", "expand"),

    /** Graphs of new prompts: `{possible, defaults, chat, n_ctx}`, what a request would become, and runs: a trace, a look at the next tokens. */
    traces: Object.freeze({
      describe: async () => (await request(address("api", "traces"))).json(),
      draft: (body) => post(body, "api", "traces", "draft"),
      start: (body) => post(body, "api", "traces"),
      predict: (body) => post(body, "api", "predictions"),
    }),

    /** `{record, reason, hint, set, link}` of one feature of a graph: its examples, or why there are none. */
    feature: async (slug, layer, feature) =>
      (await request(address("api", "graphs", slug, "features", String(layer), String(feature)))).json(),
  });
}

async function failure(reply) {
  try {
    const { error, hint } = await reply.json();
    return new ApiError(reply.status, error ?? reply.statusText, hint);
  } catch {
    return new ApiError(reply.status, `The server replied ${reply.status} ${reply.statusText}`.trim());
  }
}
