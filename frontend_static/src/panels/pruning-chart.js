/* Scores and sizes of what is left over one threshold, above the slider that sets it. */

import { svg } from "../dom.js";

/** What is drawn, in the order of the legend: a class for the colour, what it is called, and its value from 0 to 1. */
export const CURVES = Object.freeze([
  { name: "replacement", title: "replacement", value: (point) => point.replacement },
  { name: "completeness", title: "completeness", value: (point) => point.completeness },
  { name: "explained", title: "still explained", value: (point) => point.explained },
  { name: "nodes", title: "nodes", value: (point, { nodes }) => point.nodes / nodes },
  { name: "links", title: "links", value: (point, { links }) => point.links / links },
]);

/** The slider's knob has this radius, so that its middle runs as far as the curves do. */
export const INSET = 8;
const ROOM = 6;

/** Fills an SVG element: `points` in ascending order, `current` the threshold now, `whole` the numbers of nodes and links in the file. */
export function drawChart(element, { width, height, limit, points, current, point, whole }) {
  const x = (value) => INSET + (limit > 0 ? value / limit : 1) * (width - 2 * INSET);
  const y = (value) => ROOM + (1 - value) * (height - 2 * ROOM);
  element.setAttribute("viewBox", `0 0 ${width} ${height}`);
  const grid = [0, 0.5, 1].map((value) =>
    svg("path", { class: "chart-grid", d: `M${INSET} ${y(value)}H${width - INSET}` }),
  );
  const lines = CURVES.map(({ name, value }) =>
    svg("path", {
      class: `curve curve-${name}`,
      d: points.map((at, i) => `${i ? "L" : "M"}${x(at.at).toFixed(1)} ${y(value(at, whole)).toFixed(1)}`).join(""),
    }),
  );
  const now = svg("path", { class: "chart-now", d: `M${x(current).toFixed(1)} ${ROOM / 2}V${height}` });
  const dots = point
    ? CURVES.map(({ name, value }) =>
        svg("circle", { class: `curve-dot curve-${name}`, cx: x(current).toFixed(1), cy: y(value(point, whole)).toFixed(1), r: 3 }),
      )
    : [];
  element.replaceChildren(...grid, now, ...lines, ...dots);
}
