/* Paints the link graph with WebGL2: uploaded once per change, so that moving costs a few numbers. Text is drawn elsewhere. */

import { link, LINK_SHADERS, NODE_SHADERS } from "./link-graph-shaders.js";
import { bandBoxes, linkLook, nodeMarks, overhang } from "./link-graph-draw.js";

const KINDS = Object.freeze({ feature: 0, token: 1, logit: 1, error: 2 });
const LINK_WORDS = 8;
const LINKS_PER_ROW = 512;
const MARK_FLOATS = 8;
/** The canvas covers what is behind it, so that the browser needn't blend it: that costs as much as the drawing in software. */
const CONTEXT = Object.freeze({ alpha: false, antialias: false, depth: false, powerPreference: "high-performance" });

/** `{draw, upload}` on a canvas, or null where the browser has no WebGL2. */
export function createGl(canvas) {
  const gl = canvas.getContext("webgl2", CONTEXT);
  if (!gl) return null;
  const links = linkProgram(gl);
  const marks = markProgram(gl);
  gl.enable(gl.BLEND);
  gl.blendFunc(gl.ONE, gl.ONE_MINUS_SRC_ALPHA);

  /** Takes what a plan of `planScene` shows. */
  function upload(scene, plan) {
    links.upload(scene, plan.links);
    marks.upload(nodeMarks(scene, plan));
  }

  /** Draws what was uploaded as the viewport is now; of the links at most the `most` strongest, each as `segments` straight pieces. */
  function draw(scene, size, { most, segments }) {
    const density = window.devicePixelRatio || 1;
    const [width, height] = [Math.round(size.width * density), Math.round(size.height * density)];
    if (canvas.width !== width || canvas.height !== height) Object.assign(canvas, { width, height });
    gl.viewport(0, 0, width, height);
    drawBands(gl, scene, density, height);
    const { x, y, width: w, height: h } = scene.plot;
    const room = overhang(scene);
    gl.scissor(x * density, height - (y + h + room) * density, (w + room) * density, (h + 2 * room) * density);
    const [left, top] = scene.project(0, 0);
    const view = { size: [size.width, size.height], shift: [left, top], zoom: scene.zoom, density, radius: scene.radius };
    links.draw(view, most, segments);
    marks.draw(view);
  }

  return { upload, draw };
}

/** Rectangles are cleared, not drawn: nothing is cheaper. */
function drawBands(gl, scene, density, height) {
  const clear = ([r, g, b]) => {
    gl.clearColor(r / 255, g / 255, b / 255, 1);
    gl.clear(gl.COLOR_BUFFER_BIT);
  };
  gl.disable(gl.SCISSOR_TEST);
  clear(scene.palette.surface);
  gl.enable(gl.SCISSOR_TEST);
  for (const { x0, y0, x1, y1, colour } of bandBoxes(scene)) {
    const [left, right] = [Math.round(x0 * density), Math.round(x1 * density)];
    const [top, bottom] = [Math.round(y0 * density), Math.round(y1 * density)];
    if (right <= left || bottom <= top) continue;
    gl.scissor(left, height - bottom, right - left, bottom - top);
    clear(colour);
  }
}

/** A program and the function that makes it current, with the numbers of the view. */
function program(gl, shaders, more = []) {
  const linked = link(gl, shaders);
  const names = ["size2", "shift", "zoom", "density", "radius", ...more];
  const at = Object.fromEntries(names.map((name) => [name, gl.getUniformLocation(linked, name)]));
  const use = (view) => {
    gl.useProgram(linked);
    gl.uniform2fv(at.size2, view.size);
    gl.uniform2fv(at.shift, view.shift);
    gl.uniform2fv(at.zoom, view.zoom);
    gl.uniform1f(at.density, view.density);
    gl.uniform1f(at.radius, view.radius);
  };
  return { linked, at, use };
}

/** Links lie in a texture, two texels each, the weakest first. */
function linkProgram(gl) {
  const { at, use } = program(gl, LINK_SHADERS, ["links", "skipped", "segments"]);
  const texture = gl.createTexture();
  const nothing = gl.createVertexArray();
  let count = 0;

  function upload(scene, links) {
    count = links.numbers.length;
    const rows = Math.max(1, Math.ceil(count / LINKS_PER_ROW));
    const words = new Uint32Array(rows * LINKS_PER_ROW * LINK_WORDS);
    packLinks(words, scene, links);
    gl.bindTexture(gl.TEXTURE_2D, texture);
    gl.texParameteri(gl.TEXTURE_2D, gl.TEXTURE_MIN_FILTER, gl.NEAREST);
    gl.texParameteri(gl.TEXTURE_2D, gl.TEXTURE_MAG_FILTER, gl.NEAREST);
    gl.texImage2D(gl.TEXTURE_2D, 0, gl.RGBA32UI, 2 * LINKS_PER_ROW, rows, 0, gl.RGBA_INTEGER, gl.UNSIGNED_INT, words);
  }

  function draw(view, most, segments) {
    const shown = Math.min(count, most);
    if (shown === 0) return;
    use(view);
    gl.bindVertexArray(nothing);
    gl.bindTexture(gl.TEXTURE_2D, texture);
    gl.uniform1i(at.links, 0);
    gl.uniform1i(at.skipped, count - shown);
    gl.uniform1i(at.segments, segments);
    gl.drawArrays(gl.TRIANGLE_STRIP, 0, shown * (2 * segments + 4));
  }

  return { upload, draw };
}

function packLinks(words, { graph, layout, palette, scale }, { numbers, focus, strongest }) {
  const { source, target, share } = graph.links;
  const [floats, bytes] = [new Float32Array(words.buffer), new Uint8Array(words.buffer)];
  numbers.forEach((k, i) => {
    const at = i * LINK_WORDS;
    floats[at] = layout.x[source[k]];
    floats[at + 1] = layout.y[source[k]];
    floats[at + 2] = layout.x[target[k]];
    floats[at + 3] = layout.y[target[k]];
    const { width, alpha, colour } = linkLook(share[k], { focus, strongest }, palette);
    floats[at + 4] = scale * width;
    putColour(bytes, 4 * (at + 5), colour, alpha);
  });
}

/** Glyphs are points in a buffer, in the order of painting. */
function markProgram(gl) {
  const { linked, use } = program(gl, NODE_SHADERS);
  const array = gl.createVertexArray();
  const buffer = gl.createBuffer();
  let count = 0;
  gl.bindVertexArray(array);
  gl.bindBuffer(gl.ARRAY_BUFFER, buffer);
  for (const [name, size, type, offset] of [
    ["place", 2, gl.FLOAT, 0],
    ["kind", 1, gl.FLOAT, 8],
    ["size", 2, gl.FLOAT, 12],
    ["stroke", 1, gl.FLOAT, 20],
    ["fill", 4, gl.UNSIGNED_BYTE, 24],
    ["line", 4, gl.UNSIGNED_BYTE, 28],
  ]) {
    const at = gl.getAttribLocation(linked, name);
    gl.enableVertexAttribArray(at);
    gl.vertexAttribPointer(at, size, type, type === gl.UNSIGNED_BYTE, 4 * MARK_FLOATS, offset);
  }

  function upload(marks) {
    count = marks.length;
    const content = new ArrayBuffer(4 * MARK_FLOATS * count);
    packMarks(new Float32Array(content), new Uint8Array(content), marks);
    gl.bindBuffer(gl.ARRAY_BUFFER, buffer);
    gl.bufferData(gl.ARRAY_BUFFER, content, gl.DYNAMIC_DRAW);
  }

  function draw(view) {
    if (count === 0) return;
    use(view);
    gl.bindVertexArray(array);
    gl.drawArrays(gl.POINTS, 0, count);
  }

  return { upload, draw };
}

const NO_FILL = Object.freeze([0, 0, 0]);

function packMarks(floats, bytes, marks) {
  marks.forEach(({ x, y, kind, factor, add, fill, line, width, alpha }, i) => {
    const at = i * MARK_FLOATS;
    floats[at] = x;
    floats[at + 1] = y;
    floats[at + 2] = KINDS[kind];
    floats[at + 3] = factor;
    floats[at + 4] = add;
    floats[at + 5] = width;
    putColour(bytes, 4 * (at + 6), fill ?? NO_FILL, fill ? alpha : 0);
    putColour(bytes, 4 * (at + 7), line, alpha);
  });
}

/** Colours are premultiplied. */
function putColour(bytes, at, [r, g, b], alpha) {
  bytes[at] = r * alpha;
  bytes[at + 1] = g * alpha;
  bytes[at + 2] = b * alpha;
  bytes[at + 3] = 255 * alpha;
}
