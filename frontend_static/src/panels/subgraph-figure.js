/* The subgraph as a picture: boxes with their whole names, and what flows between them. */

import { pageFonts } from "../figures.js";
import { flowCurves } from "../flow-route.js";
import { clamp, css, signedColour } from "../scales.js";
import { element, paint, textElement } from "../svg-context.js";
import { palette } from "../theme.js";
import { boxName, boxPlace } from "./subgraph-box.js";

const WIDEST = 15;

/** A flow's width in pixels. */
export function flowWidth(weight) {
  return clamp(Math.abs(weight) * WIDEST, 0.6, WIDEST);
}

/** `{width, height, elements}` for `saveFigure`. */
export function subgraphFigure({ store, boxes, places, flows, size, extent }) {
  const colours = palette();
  const curves = flowCurves(flows, places, extent, size.width);
  const lines = flows.map(({ weight }, i) => {
    const stroke = paint("stroke", css(signedColour(weight, colours)), 0.85);
    const width = flowWidth(weight);
    return element({ tag: "path", attributes: { d: curves[i], fill: "none", ...stroke, "stroke-width": width.toFixed(2) } });
  });
  const drawn = boxes.flatMap((box, i) => boxElements(store, box, places[i], extent, colours));
  return { ...size, elements: [...lines.reverse(), ...drawn] };
}

function boxElements(store, box, { x, y }, { width, height }, colours) {
  const { family, size } = pageFonts();
  const grouped = box.group >= 0;
  const em = size * 0.88;
  const frame = element({
    tag: "rect",
    attributes: {
      x: (x - width / 2).toFixed(1),
      y: (y - height / 2).toFixed(1),
      width: width.toFixed(1),
      height: height.toFixed(1),
      rx: grouped ? 12 : 7,
      ...paint("fill", css(colours.surface)),
      ...paint("stroke", css(grouped ? colours.text : colours.outline)),
      "stroke-width": grouped ? 1.5 : 1,
    },
  });
  const name = wrap(boxName(store, box), Math.floor(width / (em * 0.56)), height > 45 ? 2 : 1);
  const rows = [...name, boxPlace(box)];
  const top = y - ((rows.length - 1) * em * 1.25) / 2;
  const texts = rows.map((row, i) => {
    const isName = i < name.length;
    const look = isName ? { "font-weight": 600 } : { "fill-opacity": 0.7 };
    return textElement(row, x, top + i * em * 1.25, {
      "font-family": family,
      "font-size": (isName ? em : em * 0.92).toFixed(1),
      "text-anchor": "middle",
      "dominant-baseline": "central",
      ...paint("fill", css(colours.text)),
      ...look,
    });
  });
  return [frame, ...texts];
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
