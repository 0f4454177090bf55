/* The subgraph as a picture for print: boxes with their whole names, what flows between them, and a legend. */

import { FIGURE_FONT } from "../figures.js";
import { signedPercent } from "../format.js";
import { clamp, css, signedColour } from "../scales.js";
import { BOX } from "../subgraph-layout.js";
import { element, paint, textElement } from "../svg-context.js";
import { printPalette } from "../theme.js";
import { boxPlace } from "./subgraph-box.js";

const WIDEST = 15;
const MARGIN = 10;
const LEGEND = 62;

/** A flow's width in pixels. */
export function flowWidth(weight) {
  return clamp(Math.abs(weight) * WIDEST, 0.6, WIDEST);
}

/** `{width, height, elements}` for `saveFigure`: what is on the screen, in light colours. `legend` and `weights` say what else is to be there. */
export function subgraphFigure({ boxes, names, laid, lines, supernodes, legend = true, weights = false }) {
  const colours = printPalette();
  const frames = laid.frames.flatMap((frame) => frameElements(frame, supernodes[frame.group][0], colours));
  const curves = lines.map(({ d, flow }) => {
    const stroke = paint("stroke", css(signedColour(flow.weight, colours)), 0.85);
    return element({ tag: "path", attributes: { d, fill: "none", ...stroke, "stroke-width": flowWidth(flow.weight).toFixed(2) } });
  });
  const drawn = boxes.flatMap((box, i) => boxElements(box, names[i], laid.places[i], colours));
  const numbers = weights ? lines.flatMap((line) => weightElement(line, colours)) : [];
  const width = Math.max(laid.width, legend ? 430 : 0);
  const moved = [...frames, ...curves.reverse(), ...drawn, ...numbers];
  const shift = element({ tag: "g", attributes: { transform: `translate(${((width - laid.width) / 2).toFixed(1)} 0)` }, children: moved });
  const below = legend ? legendElements(MARGIN, laid.height + MARGIN, colours) : [];
  return { width, height: laid.height + (legend ? LEGEND : 0), elements: [shift, ...below] };
}

function rectangle({ x, y, width, height }, attributes) {
  const lengths = Object.fromEntries(Object.entries({ x, y, width, height }).map(([name, value]) => [name, value.toFixed(1)]));
  return element({ tag: "rect", attributes: { ...lengths, ...attributes } });
}

function words(text, x, y, size, more = {}) {
  return textElement(text, x, y, {
    "font-family": FIGURE_FONT,
    "font-size": size,
    "dominant-baseline": "central",
    ...paint("fill", css(printPalette().text)),
    ...more,
  });
}

function boxElements(box, name, { x, y }, colours) {
  const grouped = box.group >= 0;
  const frame = rectangle(
    { x: x - BOX.width / 2, y: y - BOX.height / 2, width: BOX.width, height: BOX.height },
    {
      rx: grouped ? 12 : 7,
      ...paint("fill", css(colours.surface)),
      ...paint("stroke", css(grouped ? colours.text : colours.outline)),
      "stroke-width": grouped ? 1.5 : 1,
    },
  );
  const rows = [...wrap(name, 20, 2), boxPlace(box)];
  const top = y - (rows.length - 1) * 7;
  const texts = rows.map((row, i) => {
    const look = i < rows.length - 1 ? { "font-weight": 600 } : { "fill-opacity": 0.7 };
    return words(row, x, top + i * 14, i < rows.length - 1 ? 11.5 : 10.5, { "text-anchor": "middle", ...look });
  });
  return [frame, ...texts];
}

function frameElements({ x, y, width, height }, label, colours) {
  const line = { rx: 14, ...paint("fill", css(colours.band)), ...paint("stroke", css(colours.outline)), "stroke-width": 1.2, "stroke-dasharray": "4 3" };
  return [rectangle({ x, y, width, height }, line), words(label, x + 12, y + 10, 11.5, { "font-weight": 600 })];
}

function weightElement({ middle, flow }, colours) {
  const colour = paint("fill", css(signedColour(Math.sign(flow.weight), colours)));
  const text = signedPercent(flow.weight);
  const room = { width: 6.2 * text.length + 6, height: 14 };
  const back = rectangle({ x: middle.x - room.width / 2, y: middle.y - 7, ...room }, { rx: 4, ...paint("fill", css(colours.surface), 0.85) });
  return [back, words(text, middle.x, middle.y, 10.5, { "text-anchor": "middle", ...colour })];
}

/** What colours, widths and outlines mean. */
function legendElements(x, y, colours) {
  const line = (left, top, weight) =>
    element({
      tag: "path",
      attributes: {
        d: `M${left},${top} h34`,
        fill: "none",
        ...paint("stroke", css(signedColour(weight, colours))),
        "stroke-width": flowWidth(weight).toFixed(1),
      },
    });
  const box = (left, top, grouped) =>
    rectangle(
      { x: left, y: top - 7, width: 34, height: 14 },
      { rx: grouped ? 6 : 4, ...paint("fill", css(colours.surface)), ...paint("stroke", css(grouped ? colours.text : colours.outline)), "stroke-width": grouped ? 1.5 : 1 },
    );
  const entries = [
    [line(x, y + 8, 0.35), "promotes"],
    [line(x + 110, y + 8, -0.35), "suppresses"],
    [box(x + 220, y + 8, false), "feature, token or output"],
    [line(x, y + 34, 0.1), "10 %"],
    [line(x + 110, y + 34, 0.5), "50 % of the target’s input"],
    [box(x + 290, y + 34, true), "supernode"],
  ];
  const at = [0, 110, 220, 0, 110, 290];
  return entries.flatMap(([mark, text], i) => [mark, words(text, x + at[i] + 42, y + (i < 3 ? 8 : 34), 10.5)]);
}

/** Text in at most so many lines of so many characters, cut with an ellipsis. */
export function wrap(text, width, most) {
  const rows = [""];
  for (const word of text.split(/\s+/)) {
    const last = rows.at(-1);
    if (last === "") rows[rows.length - 1] = word;
    else if (last.length + 1 + word.length <= width) rows[rows.length - 1] = `${last} ${word}`;
    else rows.push(word);
  }
  const kept = rows.slice(0, most);
  if (rows.length > most) kept[most - 1] += "…";
  return kept.map((row) => {
    const points = Array.from(row);
    return points.length > width ? `${points.slice(0, width - 1).join("")}…` : row;
  });
}
