/* Several windows on one graph: selection, hovering and pruning in one are mirrored in the others that follow. */

const SHARED = ["selected", "wholeGroup", "hovered", "threshold", "edgeThreshold", "sign", "difference", "root"];
const NAME = "circuit-tracer";

/** Whether this browser lets windows talk to each other. */
export function canFollow() {
  return typeof BroadcastChannel === "function";
}

/**
 * While the store's `following` is on, tells other windows what changes here and takes over what changes there, for the same graph alone.
 * `take(patch)` puts their values into the store. Returns the function that ends it.
 */
export function followWindows(store, take, open = () => new BroadcastChannel(NAME)) {
  let channel = null;
  let taking = false;

  function hear({ data }) {
    if (data?.slug !== store.get("slug") || store.get("graph") === null) return;
    const patch = Object.fromEntries(Object.entries(data.state ?? {}).filter(([key]) => SHARED.includes(key)));
    taking = true;
    try {
      take(patch);
    } finally {
      taking = false;
    }
  }

  function tell() {
    if (channel === null || taking || store.get("graph") === null) return;
    channel.postMessage({ slug: store.get("slug"), state: Object.fromEntries(SHARED.map((key) => [key, store.get(key)])) });
  }

  function begin() {
    if (store.get("following") === (channel !== null)) return;
    if (channel === null) {
      channel = open();
      channel.onmessage = hear;
    } else {
      channel.close();
      channel = null;
    }
  }

  const disposers = [store.subscribe(["following"], begin), store.subscribe(SHARED, tell)];
  begin();
  return () => {
    disposers.forEach((dispose) => dispose());
    channel?.close();
  };
}
