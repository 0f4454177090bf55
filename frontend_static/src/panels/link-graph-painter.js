/* Decides what paints the link graph and how much of it: all when it rests, fewer links while it moves on a slow machine. */

import { clamp } from "../scales.js";
import { drawGraph, drawHover, planScene, prepare } from "./link-graph-draw.js";
import { createGl } from "./link-graph-gl.js";

const GL_BACKGROUND = 3000;
const ALL = Object.freeze({ most: Infinity, segments: 28 });
/** How many links are drawn while the view moves, and as how many straight pieces each, by how fast frames came the last time. */
const LEVELS = Object.freeze({
  webgl: [
    ALL,
    { most: 400, segments: 14 },
    { most: 120, segments: 10 },
  ],
  canvas: [{ most: 400 }, { most: 120 }, { most: 40 }],
});
const FLUID = 21;
const STUTTERING = 55;
const FRAMES_TO_JUDGE = 8;

/**
 * The painter of a plot's canvases: `paint(scene, size, moving)`, `hover(scene, size)`, and `forget()` after a change of anything but the
 * viewport. `redraw` is called when another painter has to take over.
 */
export function createPainter({ base, glass, top }, redraw) {
  const current = chosenPainter(base, glass, redraw);
  const pace = createPace();
  let plan = null;

  function paint(scene, size, moving) {
    const gl = current();
    const { most, segments } = moving ? LEVELS[gl ? "webgl" : "canvas"][pace.moved()] : ALL;
    if (!moving) pace.rested();
    if (plan === null || plan.gl !== gl) {
      plan = { ...planScene(scene, gl ? GL_BACKGROUND : undefined), gl };
      gl?.upload(scene, plan);
    }
    if (gl) gl.draw(scene, size, { most, segments: Math.round(segments * clamp(Math.sqrt(Math.max(...scene.zoom)), 1, 2.5)) });
    else drawGraph(prepare(base, size.width, size.height, { many: true }), scene, plan, most);
  }

  /** Every canvas that is shown costs each frame of the page, so that this one is there for a hovered node alone. */
  function hover(scene, size) {
    top.hidden = scene === null || (scene.hovered < 0 && !scene.lit?.size);
    if (!top.hidden) drawHover(prepare(top, size.width, size.height), scene);
  }

  const forget = () => {
    plan = null;
  };
  return { paint, hover, forget };
}

/**
 * How much to draw while the view moves: 0 for all of it, 1 or 2 for less. `moved()` tells it, and hears of each frame of a movement;
 * `rested()` ends one and judges by its typical frame what the next shall draw.
 */
export function createPace(now = () => performance.now()) {
  let [level, last, gaps] = [1, null, []];
  return {
    moved() {
      const at = now();
      if (last !== null) gaps.push(at - last);
      last = at;
      return level;
    },
    rested() {
      const typical = [...gaps].sort((a, b) => a - b)[Math.floor(gaps.length / 2)];
      if (gaps.length >= FRAMES_TO_JUDGE && typical < FLUID) level = Math.max(0, level - 1);
      if (gaps.length >= FRAMES_TO_JUDGE && typical > STUTTERING) level = Math.min(2, level + 1);
      [last, gaps] = [null, []];
    },
  };
}

/** WebGL where it works. Without it, after its context is lost, or where it fails, all is painted in two dimensions. */
function chosenPainter(base, glass, redraw) {
  let gl = null;
  const use = (found) => {
    gl = found;
    glass.dataset.painter = gl ? "webgl" : "canvas";
    glass.hidden = !gl;
    base.hidden = Boolean(gl);
  };
  const begin = () => {
    try {
      use(createGl(glass));
    } catch {
      use(null);
    }
  };
  glass.addEventListener("webglcontextlost", (event) => {
    event.preventDefault();
    use(null);
    redraw();
  });
  glass.addEventListener("webglcontextrestored", () => {
    begin();
    redraw();
  });
  begin();
  return () => gl;
}
