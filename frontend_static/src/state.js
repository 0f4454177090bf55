/* The one store: named values, subscriptions by key, and the history of edits. Pure: no DOM, no fetch. */

import { NONE } from "./added-values.js";

const HISTORY_LIMIT = 200;

/** What undo goes back over: the annotations, which are saved, and the node that is explained. */
export const EDIT_KEYS = Object.freeze(["pinned", "supernodes", "labels", "positions", "boxFrame", "expanded", "subgraphs", "subgraphName", "notes", "root", "added"]);

/**
 * A store over `initial`.
 *
 * - `get(key)`, `set(patch)`: values are replaced, never changed in place; subscribers of changed keys run once per patch.
 * - `subscribe(keys, listener)`: returns the function that ends it.
 * - `edit(patch, sitting)`: a `set` that can be undone; edits of one sitting (typing in one field) are undone as one. `undo()` and `redo()` return whether there was anything to do.
 */
export function createStore(initial) {
  const state = { ...initial };
  const listeners = new Set();
  let past = [];
  let future = [];
  let lastSitting = null;

  function set(patch) {
    const changed = Object.keys(patch).filter((key) => !Object.is(state[key], patch[key]));
    if (changed.length === 0) return;
    Object.assign(state, patch);
    for (const entry of [...listeners]) {
      if (listeners.has(entry) && changed.some((key) => entry.keys.has(key))) entry.listener(state);
    }
  }

  const snapshot = () => Object.fromEntries(EDIT_KEYS.map((key) => [key, state[key]]));
  const history = () => ({ canUndo: past.length > 0, canRedo: future.length > 0 });

  function edit(patch, sitting = null) {
    const goesOn = sitting !== null && sitting === lastSitting && past.length > 0;
    if (!goesOn) past = [...past.slice(-HISTORY_LIMIT + 1), snapshot()];
    lastSitting = sitting;
    future = [];
    set({ ...patch, ...history(), edits: state.edits + 1 });
  }

  function travel(from, to) {
    if (from.length === 0) return false;
    lastSitting = null;
    to.push(snapshot());
    const restored = from.pop();
    set({ ...restored, ...history(), edits: state.edits + 1 });
    return true;
  }

  function forget() {
    past = [];
    future = [];
    lastSitting = null;
    set(history());
  }

  function subscribe(keys, listener) {
    const entry = { keys: new Set(keys), listener };
    listeners.add(entry);
    return () => listeners.delete(entry);
  }

  state.edits ??= 0;
  return Object.freeze({
    get: (key) => state[key],
    set,
    edit,
    subscribe,
    forget,
    undo: () => travel(past, future),
    redo: () => travel(future, past),
  });
}

/** What the page starts with. `selected`, `hovered` and the annotations hold node ids. */
export function initialState() {
  return {
    graphs: [],
    problems: [],
    tracing: null,
    canTrace: false,
    slug: null,
    graph: null,
    etag: null,
    failure: null,
    failed: false,
    loading: true,
    selected: null,
    wholeGroup: false,
    hovered: null,
    lit: Object.freeze([]),
    head: null,
    threshold: 1,
    edgeThreshold: 1,
    visible: null,
    least: 0,
    side: "all",
    pruned: null,
    left: null,
    curves: Object.freeze({ nodes: Object.freeze([]), links: Object.freeze([]) }),
    pruningOpen: false,
    pruningProblem: null,
    linkType: "both",
    sign: "all",
    path: null,
    difference: null,
    root: null,
    added: NONE,
    attributes: null,
    everyAttribute: false,
    following: false,
    query: "",
    pinned: [],
    supernodes: [],
    labels: {},
    positions: {},
    boxFrame: null,
    expanded: [],
    subgraphs: [],
    subgraphName: "",
    drafts: null,
    flow: null,
    everyFlow: false,
    errorsOpen: false,
    flowWeights: false,
    flowCount: Object.freeze({ shown: 0, all: 0 }),
    notes: Object.freeze({ graph: "", nodes: Object.freeze({}) }),
    hidden: [],
    otherParams: {},
    grouping: null,
    naming: null,
    editing: false,
    panels: [],
    shape: "wide",
    layout: [],
    addressLayout: null,
    raised: [],
    shown: [],
    maximised: null,
    tab: null,
    featureLabels: {},
    labelOrigins: {},
    saving: { kind: "idle", message: "" },
    notice: null,
    filters: Object.freeze({ kind: "all" }),
    scatter: Object.freeze({ x: "", y: "" }),
    canUndo: false,
    canRedo: false,
    edits: 0,
    theme: "light",
  };
}
