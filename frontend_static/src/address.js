/* The page's URL: the graph and its view. Annotations are in the graph's file, and in a URL only for sharing. Pure. */

import { writePositions } from "./annotations.js";

/** Longer URLs are cut off by chat programs, mail readers and proxies. */
export const LONGEST = 2000;

const ANNOTATIONS = ["pinnedIds", "hiddenIds", "supernodes", "clerps", "sg_pos", "sg_size", "sg_expanded"];
const PARAMS = [...ANNOTATIONS, "clickedId", "linkType", "pruningThreshold", "edgeThreshold", "logitDiff"];

/** View state by its parameter: the store's key and what isn't worth telling. */
const VIEW = Object.freeze({
  sign: { key: "sign", usual: "all", known: ["all", "positive", "negative"] },
  root: { key: "root", usual: null, known: null },
  panel: { key: "tab", usual: null, known: null },
});

/**
 * What an address says: `{slug, params, view, layout, annotated}`. `params` has the shape of `qParams` without the keys that it doesn't
 * name, `view` values for the store, `layout` a gridsnap string or null; `annotated` tells whether it brings pins, groups or labels.
 */
export function readAddress(search) {
  const address = new URLSearchParams(search);
  const named = PARAMS.filter((key) => address.has(key)).map((key) => [key, address.get(key)]);
  const view = Object.entries(VIEW).flatMap(([param, { key, known }]) => {
    const value = address.get(param);
    return value !== null && (known === null || known.includes(value)) ? [[key, value]] : [];
  });
  const scatter = { x: address.get("feature_scatter_x") ?? "", y: address.get("feature_scatter_y") ?? "" };
  return {
    slug: address.get("slug"),
    params: Object.fromEntries(named),
    view: { ...Object.fromEntries(view), ...(scatter.x || scatter.y ? { scatter: Object.freeze(scatter) } : {}) },
    layout: address.get("gridsnap"),
    annotated: ANNOTATIONS.some((key) => address.has(key)),
  };
}

/** The address' query for a view; with `everything`, also pins, groups and labels. `state.layoutText` is a gridsnap string, if it is to be told. */
export function addressOf(state, everything = false) {
  const address = new URLSearchParams();
  if (state.slug) address.set("slug", state.slug);
  if (state.selected) address.set("clickedId", state.selected);
  if (state.threshold !== null) address.set("pruningThreshold", String(Number(state.threshold.toFixed(4))));
  if (Number.isFinite(state.edgeThreshold)) address.set("edgeThreshold", String(Number(state.edgeThreshold.toFixed(4))));
  if (state.difference) address.set("logitDiff", state.difference);
  if (state.linkType) address.set("linkType", state.linkType);
  for (const [param, { key, usual }] of Object.entries(VIEW))
    if ((state[key] ?? usual) !== usual) address.set(param, state[key]);
  if (state.scatter?.x) address.set("feature_scatter_x", state.scatter.x);
  if (state.scatter?.y) address.set("feature_scatter_y", state.scatter.y);
  if (state.layoutText) address.set("gridsnap", state.layoutText);
  if (everything) {
    if (state.pinned.length > 0) address.set("pinnedIds", state.pinned.join(","));
    if (state.hidden?.length > 0) address.set("hiddenIds", state.hidden.join(","));
    if (state.supernodes.length > 0) address.set("supernodes", JSON.stringify(state.supernodes));
    if (Object.keys(state.labels).length > 0) address.set("clerps", JSON.stringify(Object.entries(state.labels)));
    if (state.expanded?.length > 0) address.set("sg_expanded", state.expanded.join(","));
    if (state.boxFrame) address.set("sg_size", state.boxFrame.join(" "));
    if (Object.keys(state.positions ?? {}).length > 0) address.set("sg_pos", writePositions(state.positions));
  }
  return address.toString();
}

/** `{query, complete}` to hand on: with the annotations if that stays short enough, else the view alone. */
export function addressToShare(state, page = "") {
  const whole = addressOf(state, true);
  if (page.length + 1 + whole.length <= LONGEST) return { query: whole, complete: true };
  return { query: addressOf(state), complete: false };
}
