/* Paints the scatter plot. Independent of the store. */

import { number } from "../format.js";
import { css } from "../scales.js";

const FULL_TURN = 2 * Math.PI;

export function drawScatter(canvas, scene) {
  const { width, height } = scene.axes;
  const density = window.devicePixelRatio || 1;
  const size = { width: Math.round(width * density), height: Math.round(height * density) };
  if (canvas.width !== size.width || canvas.height !== size.height) Object.assign(canvas, size);
  const context = canvas.getContext("2d");
  context.setTransform(density, 0, 0, density, 0, 0);
  context.clearRect(0, 0, width, height);
  drawAxes(context, scene);
  drawPoints(context, scene);
  drawLasso(context, scene);
}

function drawAxes(context, { axes, palette, em }) {
  const { frame, x, y } = axes;
  const along = (value, { low, high }) => (value - low) / (high - low);
  context.fillStyle = css(palette.band);
  context.fillRect(frame.x, frame.y, frame.width, frame.height);
  context.strokeStyle = css(palette.surface);
  context.fillStyle = css(palette.text, 0.72);
  context.lineWidth = 1;
  context.font = `${em * 0.84}px ${window.getComputedStyle(document.body).fontFamily}`;
  context.textBaseline = "top";
  context.textAlign = "center";
  for (const tick of x.ticks) {
    const at = frame.x + along(tick, x) * frame.width;
    line(context, at, frame.y, at, frame.y + frame.height);
    context.fillText(number(tick), at, frame.y + frame.height + 0.4 * em);
  }
  context.fillText(x.title, frame.x + frame.width / 2, frame.y + frame.height + 1.75 * em, frame.width);
  context.textBaseline = "middle";
  context.textAlign = "right";
  for (const tick of y.ticks) {
    const at = frame.y + (1 - along(tick, y)) * frame.height;
    line(context, frame.x, at, frame.x + frame.width, at);
    context.fillText(number(tick), frame.x - 0.5 * em, at);
  }
  context.save();
  context.translate(0.7 * em, frame.y + frame.height / 2);
  context.rotate(-Math.PI / 2);
  context.textAlign = "center";
  context.fillText(y.title, 0, 0, frame.height);
  context.restore();
}

function line(context, x0, y0, x1, y1) {
  context.beginPath();
  context.moveTo(x0, y0);
  context.lineTo(x1, y1);
  context.stroke();
}

function drawPoints(context, { graph, xs, ys, marks, pinned, selected, hovered, palette, em }) {
  const radius = (graph.nodes.length > 2000 ? 0.17 : 0.24) * em;
  const dot = (i, size) => {
    context.beginPath();
    if (graph.nodes[i].kind === "feature") context.arc(xs[i], ys[i], size, 0, FULL_TURN);
    else context.rect(xs[i] - size * 0.9, ys[i] - size * 0.9, size * 1.8, size * 1.8);
  };
  context.fillStyle = css(palette.text, marks.size ? 0.16 : 0.34);
  for (let i = 0; i < xs.length; i += 1) {
    if (Number.isNaN(xs[i]) || marks.has(i)) continue;
    dot(i, radius);
    context.fill();
  }
  context.fillStyle = css(palette.group);
  for (const i of marks) {
    dot(i, radius * 1.25);
    context.fill();
  }
  const ring = (i, colour, width, grow) => {
    if (i < 0 || Number.isNaN(xs[i] ?? Number.NaN)) return;
    context.strokeStyle = css(colour);
    context.lineWidth = width;
    dot(i, radius + grow);
    context.stroke();
  };
  for (const i of pinned) ring(i, palette.text, 1.8, 1.5);
  ring(hovered, palette.accent, 1.5, 4);
  ring(selected, palette.accent, 2.4, 3);
}

function drawLasso(context, { lasso, palette }) {
  if (lasso.length < 3) return;
  context.beginPath();
  lasso.forEach(([x, y]) => context.lineTo(x, y));
  context.closePath();
  context.fillStyle = css(palette.group, 0.14);
  context.strokeStyle = css(palette.group);
  context.lineWidth = 1.5;
  context.fill();
  context.stroke();
}
