/* Paints links and nodes with WebGL2: uploaded once per change, so that moving costs a few numbers. Bands and text are drawn elsewhere. */

import { signedColour, strokeWidth } from "../scales.js";
import { link, LINK_SHADERS, NODE_SHADERS } from "./link-graph-shaders.js";
import { nodeMarks } from "./link-graph-draw.js";

const KINDS = Object.freeze({ feature: 0, token: 1, logit: 1, error: 2 });
const SEGMENTS = 28;
const LINK_FLOATS = 6;
const MARK_FLOATS = 8;

/** `{draw, upload}` on a canvas, or null where the browser has no WebGL2. */
export function createGl(canvas) {
  const gl = canvas.getContext("webgl2", { antialias: false, premultipliedAlpha: true, powerPreference: "high-performance" });
  if (!gl) return null;
  const links = instances(gl, LINK_SHADERS, LINK_FLOATS, [
    ["ends", 4, gl.FLOAT, 0],
    ["width", 1, gl.FLOAT, 16],
    ["colour", 4, gl.UNSIGNED_BYTE, 20],
  ]);
  const marks = instances(gl, NODE_SHADERS, MARK_FLOATS, [
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
    gl.disable(gl.SCISSOR_TEST);
    gl.viewport(0, 0, width, height);
    gl.clearColor(0, 0, 0, 0);
    gl.clear(gl.COLOR_BUFFER_BIT);
    const { x, y, width: w, height: h } = scene.plot;
    gl.enable(gl.SCISSOR_TEST);
    gl.scissor(x * density, height - (y + h + 6) * density, (w + 6) * density, (h + 12) * density);
    const [left, top] = scene.project(0, 0);
    const view = { size: [size.width, size.height], shift: [left, top], zoom: scene.zoom, density, radius: scene.radius };
    const skipped = Math.max(0, links.count() - most);
    links.draw(view, gl.TRIANGLE_STRIP, 2 * (SEGMENTS + 1), skipped);
    marks.draw(view, gl.TRIANGLE_STRIP, 4, 0);
  }

  return { upload, draw };
}

/** One program and the buffer of its instances. */
function instances(gl, shaders, floats, attributes) {
  const program = link(gl, shaders);
  const array = gl.createVertexArray();
  const buffer = gl.createBuffer();
  const stride = 4 * floats;
  let count = 0;
  const uniform = (name) => gl.getUniformLocation(program, name);
  const places = { size: uniform("size2"), shift: uniform("shift"), zoom: uniform("zoom"), density: uniform("density") };
  const radius = uniform("radius");

  function point(from) {
    for (const [name, size, type, offset] of attributes) {
      const at = gl.getAttribLocation(program, name);
      gl.enableVertexAttribArray(at);
      gl.vertexAttribPointer(at, size, type, type === gl.UNSIGNED_BYTE, stride, offset + from * stride);
      gl.vertexAttribDivisor(at, 1);
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
    draw(view, mode, vertices, skipped) {
      if (count === 0) return;
      gl.useProgram(program);
      gl.bindVertexArray(array);
      gl.bindBuffer(gl.ARRAY_BUFFER, buffer);
      point(skipped);
      gl.uniform2fv(places.size, view.size);
      gl.uniform2fv(places.shift, view.shift);
      gl.uniform1f(places.zoom, view.zoom);
      gl.uniform1f(places.density, view.density);
      gl.uniform1f(radius, view.radius);
      gl.drawArraysInstanced(mode, 0, vertices, count - skipped);
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

function packMarks(floats, bytes, marks) {
  marks.forEach(({ x, y, kind, factor, add, fill, line, width, alpha }, i) => {
    const at = i * MARK_FLOATS;
    floats.set([x, y, KINDS[kind], factor, add, width], at);
    putColour(bytes, 4 * (at + 6), fill ?? [0, 0, 0], fill ? alpha : 0);
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
