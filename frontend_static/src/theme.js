/* Light and dark: which one, and its colours for canvases. */

import { THEMES } from "./scales.js";

const KEY = "circuit-tracer-theme";
const CANVAS_COLOURS = Object.freeze({
  light: Object.freeze({
    ...THEMES.light,
    band: [247, 246, 242],
    bandStrong: [240, 238, 231],
    outline: [60, 58, 54],
    accent: [214, 51, 132],
    group: [0, 140, 170],
    onlyA: [36, 99, 214],
    onlyB: [222, 110, 10],
    shared: [125, 122, 115],
  }),
  dark: Object.freeze({
    ...THEMES.dark,
    band: [38, 39, 43],
    bandStrong: [46, 47, 52],
    outline: [190, 187, 180],
    accent: [255, 110, 180],
    group: [64, 200, 224],
    onlyA: [110, 165, 255],
    onlyB: [255, 160, 70],
    shared: [160, 157, 150],
  }),
});

let current = "light";

/** The colours of the theme that is on. */
export function palette() {
  return CANVAS_COLOURS[current];
}

/** The colours of pictures for print, whatever theme is on. */
export function printPalette() {
  return CANVAS_COLOURS.light;
}

/** The page's font size in pixels, which grows with the window. */
export function fontSize() {
  return Number.parseFloat(window.getComputedStyle(document.body).fontSize) || 13;
}

/** The remembered theme, else the system's. */
export function preferredTheme() {
  const kept = remembered(KEY);
  if (kept === "light" || kept === "dark") return kept;
  return window.matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light";
}

export function applyTheme(name, keep = false) {
  current = name;
  document.documentElement.dataset.theme = name;
  if (keep) remember(KEY, name);
}

/** A value kept in this browser; null where the browser keeps nothing (private window, blocked storage). */
export function remembered(key) {
  try {
    return window.localStorage.getItem(key);
  } catch {
    return null;
  }
}

export function remember(key, value) {
  try {
    window.localStorage.setItem(key, value);
  } catch {
    // Without storage the choice lasts as long as the page.
  }
}
