/* The heads of a selection as a map: layers up, heads across, the darker the more of the links a head brings. */

import { h } from "../dom.js";
import { number, percent } from "../format.js";
import { headName, sameHead } from "../heads.js";
import { css, signedColour, textOn } from "../scales.js";
import { palette } from "../theme.js";

const NAMED = 6;
const ROOMY = 16;

/** `map` as `headMap` gives it; `choose` gets the head of a cell that is clicked. */
export function headGrid(map, chosen, choose) {
  const cells = new Map(map.heads.map((one) => [headName(one), one]));
  const named = new Set(map.heads.slice(0, NAMED).map(headName));
  const rows = [...Array(map.layers).keys()].reverse();
  const columns = [...Array(map.width).keys()];
  return h(
    "div",
    { class: "head-map", role: "group", "aria-label": "Heads by layer", style: { "--heads": String(map.width) } },
    ...rows.map((layer) =>
      h(
        "div",
        { class: "head-row" },
        h("span", { class: "head-layer" }, `L${layer}`),
        ...columns.map((head) => cell(cells.get(headName({ layer, head })), { layer, head }, map, named, chosen, choose)),
      ),
    ),
    h("div", { class: "head-row head-axis", "aria-hidden": "true" }, h("span", { class: "head-layer" }), ...columns.map((head) => h("span", {}, map.width <= ROOMY ? `H${head}` : head % 4 === 0 ? String(head) : ""))),
  );
}

function cell(one, place, map, named, chosen, choose) {
  const name = headName(place);
  if (!one) return h("span", { class: "head-cell is-empty", title: `${name}: nothing` });
  const strength = map.most ? one.share / map.most : 0;
  const colour = signedColour(0.4 * strength * (one.value < 0 ? -1 : 1), palette());
  const label = `${name}: ${percent(one.share)} of these links, ${number(one.value)} in all`;
  return h(
    "button",
    {
      class: "head-cell",
      type: "button",
      "data-head": name,
      "aria-pressed": String(sameHead(place, chosen)),
      "aria-label": label,
      title: `${label}. Click: only the links through it`,
      style: { background: css(colour, 0.25 + 0.75 * strength), color: strength > 0.5 ? css(textOn(colour)) : "inherit" },
      onclick: () => choose(place),
    },
    named.has(name) ? percentShort(one.share) : "",
  );
}

const percentShort = (share) => `${Math.round(100 * share)} %`;
