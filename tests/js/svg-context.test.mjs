import assert from "node:assert/strict";
import { test } from "node:test";

import { escapeXml, paint, svgContext, svgDocument } from "../../frontend_static/src/svg-context.js";

test("shapes stay shapes, and a fill with its stroke is one element", () => {
  const context = svgContext();
  context.fillStyle = "rgb(10 20 30)";
  context.strokeStyle = "rgb(1 2 3 / 0.5)";
  context.beginPath();
  context.arc(5, 6.0001, 2, 0, 2 * Math.PI);
  context.fill();
  context.stroke();
  context.beginPath();
  context.rect(0, 1, 2, 3);
  context.stroke();
  context.fillRect(9, 9, 1, 1);
  assert.deepEqual(context.elements(), [
    '<circle cx="5" cy="6" r="2" fill="#0a141e" stroke="#010203" stroke-opacity="0.5" stroke-width="1"/>',
    '<rect x="0" y="1" width="2" height="3" fill="none" stroke="#010203" stroke-opacity="0.5" stroke-width="1"/>',
    '<rect x="9" y="9" width="1" height="1" fill="#0a141e"/>',
  ]);
});

test("state is saved and restored, clips are closed", () => {
  const context = svgContext();
  context.save();
  context.beginPath();
  context.rect(0, 0, 10, 10);
  context.clip();
  context.globalAlpha = 0.25;
  context.setLineDash([2, 3]);
  context.lineCap = "round";
  context.beginPath();
  context.moveTo(0, 0);
  context.bezierCurveTo(1, 1, 2, 2, 3.14159, 3);
  context.stroke();
  context.restore();
  context.beginPath();
  context.lineTo(1, 1);
  context.lineTo(2, 2);
  context.closePath();
  context.fill();
  assert.deepEqual(context.elements(), [
    '<clipPath id="clip1"><rect x="0" y="0" width="10" height="10"/></clipPath>',
    '<g clip-path="url(#clip1)">',
    '<path d="M0 0C1 1 2 2 3.14 3" fill="none" stroke="#000000" stroke-width="1" stroke-linecap="round" stroke-dasharray="2 3"/>',
    "</g>",
    '<path d="M1 1L2 2Z" fill="#000000"/>',
  ]);
});

test("texts keep their font, anchor and turn, and can't become markup", () => {
  const context = svgContext();
  context.font = '600 12px "Noto Sans", sans-serif';
  context.textAlign = "right";
  context.textBaseline = "middle";
  context.save();
  context.translate(1, 2);
  context.rotate(-Math.PI / 2);
  context.fillText("<a & b>\u0000", 3, 4);
  context.restore();
  const [text] = context.elements();
  assert.match(text, /transform="translate\(1 2\)rotate\(-90\)"/);
  assert.match(text, /font-weight="600"/);
  assert.match(text, /text-anchor="end" dominant-baseline="central"/);
  assert.match(text, />&lt;a &amp; b&gt;<\/text>$/);
});

test("documents hold only what XML can hold", () => {
  const title = "\u0000 \ud800 <&> 🧠 مرحبا";
  assert.equal(escapeXml(title), "  &lt;&amp;&gt; 🧠 مرحبا");
  const text = svgDocument({ width: 10, height: 20, background: "rgb(255 255 255)", title, elements: ["<g/>"] });
  assert.match(text, /^<svg xmlns="http:\/\/www.w3.org\/2000\/svg" width="10" height="20" viewBox="0 0 10 20">/);
  assert.match(text, /<rect width="10" height="20" fill="#ffffff"\/>/);
});

test("colours as any program reads them", () => {
  assert.deepEqual(paint("fill", "rgb(1, 2, 255)"), { fill: "#0102ff" });
  assert.deepEqual(paint("stroke", "rgb(1 2 3 / 0.5)", 0.5), { stroke: "#010203", "stroke-opacity": 0.25 });
  assert.deepEqual(paint("fill", "#abc"), { fill: "#abc" });
});
