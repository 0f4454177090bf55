/* Paints the link graph with WebGL2: uploaded once per change, so that moving costs a few numbers. Text is drawn elsewhere. */

import { signedColour, strokeWidth } from "../scales.js";
import { link, LINK_SHADERS, NODE_SHADERS } from "./link-graph-shaders.js";
import { bandBoxes, nodeMarks } from "./link-graph-draw.js";

const KINDS = Object.freeze({ feature: 0, token: 1, logit: 1, error: 2 });
const SEGMENTS = 28;
const LINK_FLOATS = 6;
const MARK_FLOATS = 8;
/** The canvas covers what is behind it, so that the browser needn't blend it: that costs as much as the drawing in software. */
const CONTEXT = Object.freeze({ alpha: false, antialias: false, depth: false, powerPreference: "high-performance" });

/** `{draw, upload}` on a canvas, or null where the browser has no WebGL2. */
export function createGl(canvas) {
  const gl = canvas.getContext("webgl2", CONTEXT);
  if (!gl) return null;
  const links = buffered(gl, LINK_SHADERS, LINK_FLOATS, 1, [
    ["ends", 4, gl.FLOAT, 0],
    ["width", 1, gl.FLOAT, 16],
    ["colour", 4, gl.UNSIGNED_BYTE, 20],
  ]);
  const marks = buffered(gl, NODE_SHADERS, MARK_FLOATS, 0, [
    ["place", 2, gl.FLOAT, 0],
    ["kind", 1, gl.FLOAT, 8],
    ["size", 2, gl.FLOAT, 12],
    ["stroke", 1, gl.FLOAT, 20],
    ["fill", 4, gl.UNSIGNED_BYTE, 24],
    ["line", 4, gl.UNSIGNED_BYTE, 28],
  ]);
  gl.enable(gl.BLEND);
  gl.blendFunc(gl.ONE, gl.ONE_MINUS_SRC_ALPHA);

  /** Takes what a plan of `planScene` shows. */
  function upload(scene, plan) {
    links.fill(plan.links.numbers.length, (floats, bytes) => packLinks(floats, bytes, scene, plan.links));
    const wanted = nodeMarks(scene, plan);
    marks.fill(wanted.length, (floats, bytes) => packMarks(floats, bytes, wanted));
  }

  /** Draws what was uploaded as the viewport is now; of the links at most the `most` strongest. */
  function draw(scene, size, most) {
    const density = window.devicePixelRatio || 1;
    const [width, height] = [Math.round(size.width * density), Math.round(size.height * density)];
    if (canvas.width !== width || canvas.height !== height) Object.assign(canvas, { width, height });
    gl.viewport(0, 0, width, height);
    drawBands(scene, density, height);
    const { x, y, width: w, height: h } = scene.plot;
    gl.scissor(x * density, height - (y + h + 6) * density, (w + 6) * density, (h + 12) * density);
    const [left, top] = scene.project(0, 0);
    const view = { size: [size.width, size.height], shift: [left, top], zoom: scene.zoom, density, radius: scene.radius };
    const skipped = Math.max(0, links.count() - most);
    links.use(view, skipped);
    if (links.count() > 0) gl.drawArraysInstanced(gl.TRIANGLE_STRIP, 0, 2 * (SEGMENTS + 1), links.count() - skipped);
    marks.use(view, 0);
    if (marks.count() > 0) gl.drawArrays(gl.POINTS, 0, marks.count());
  }

  /** Rectangles are cleared, not drawn: nothing is cheaper. */
  function drawBands(scene, density, height) {
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

  return { upload, draw };
}

/** One program and the buffer that it reads: per vertex with divisor 0, per instance with 1. */
function buffered(gl, shaders, floats, divisor, attributes) {
  const program = link(gl, shaders);
  const array = gl.createVertexArray();
  const buffer = gl.createBuffer();
  const stride = 4 * floats;
  const uniform = Object.fromEntries(
    ["size2", "shift", "zoom", "density", "radius"].map((name) => [name, gl.getUniformLocation(program, name)]),
  );
  const places = attributes.map(([name, ...format]) => [gl.getAttribLocation(program, name), ...format]);
  let count = 0;

  function point(from) {
    for (const [at, size, type, offset] of places) {
      gl.enableVertexAttribArray(at);
      gl.vertexAttribPointer(at, size, type, type === gl.UNSIGNED_BYTE, stride, offset + from * stride);
      gl.vertexAttribDivisor(at, divisor);
    }
  }

  return {
    count: () => count,
    fill(amount, pack) {
      const content = new ArrayBuffer(amount * stride);
      pack(new Float32Array(content), new Uint8Array(content));
      gl.bindBuffer(gl.ARRAY_BUFFER, buffer);
      gl.bufferData(gl.ARRAY_BUFFER, content, gl.DYNAMIC_DRAW);
      count = amount;
    },
    /** Makes all ready to draw from an entry of the buffer on. */
    use(view, from) {
      gl.useProgram(program);
      gl.bindVertexArray(array);
      gl.bindBuffer(gl.ARRAY_BUFFER, buffer);
      point(from);
      gl.uniform2fv(uniform.size2, view.size);
      gl.uniform2fv(uniform.shift, view.shift);
      gl.uniform1f(uniform.zoom, view.zoom);
      gl.uniform1f(uniform.density, view.density);
      gl.uniform1f(uniform.radius, view.radius);
    },
  };
}

function packLinks(floats, bytes, { graph, layout, palette }, { numbers, focus }) {
  const { source, target, share } = graph.links;
  numbers.forEach((k, i) => {
    const at = i * LINK_FLOATS;
    floats[at] = layout.x[source[k]];
    floats[at + 1] = layout.y[source[k]];
    floats[at + 2] = layout.x[target[k]];
    floats[at + 3] = layout.y[target[k]];
    floats[at + 4] = strokeWidth(share[k], focus ? 4 : 2.2);
    const alpha = focus ? 0.92 : 0.08 + 0.3 * Math.min(1, Math.abs(share[k]) * 2);
    putColour(bytes, 4 * (at + 5), signedColour(share[k], palette), alpha);
  });
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
