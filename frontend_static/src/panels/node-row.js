/* One node as a row of a list: glyph, name, place, and how strongly it is connected. */

import { click, hover } from "../actions.js";
import { glyph, h } from "../dom.js";
import { influenceTitle, nodeLabel, nodePlace, ownInfluence, proposedOrigin, signed, signedPercent } from "../format.js";
import { css, signedColour } from "../scales.js";
import { palette } from "../theme.js";

/**
 * `link` is `{share, weight, widest, arrow}` for a connection; without it the row tells the node's influence.
 */
export function nodeRow(store, node, link = null) {
  const label = nodeLabel(node, store.get("labels"), store.get("featureLabels")[node.code]);
  const origin = proposedOrigin(node, store.get("labels"), store.get("featureLabels")[node.code]);
  const classes = ["node-row"];
  if (store.get("selected") === node.id) classes.push("is-selected");
  if (store.get("pinned").includes(node.id)) classes.push("is-pinned");
  return h(
    "button",
    {
      class: classes.join(" "),
      type: "button",
      "data-node": node.id,
      onclick: (event) => click(store, node.id, event),
      onpointerenter: (event) => entered(store, node.id, event),
      onpointerleave: () => hover(store, null),
    },
    link && bar(link),
    glyph(node.kind),
    h("span", { class: origin ? "node-name proposed" : "node-name", dir: "auto", title: origin ? `${label} (${origin})` : label }, label),
    h("span", { class: "node-place", title: nodePlace(node) }, link?.arrow ? `${link.arrow} ` : "", nodePlace(node)),
    link
      ? amount(link)
      : h("span", { class: "node-amount", title: influenceTitle(node) }, node.influence === null ? "" : ownInfluence(node)),
  );
}

/** A click replaces the list, and another row lies under the pointer: nobody pointed at it until the pointer moves. */
let pressedAt = null;
document.addEventListener("pointerup", ({ screenX, screenY }) => (pressedAt = { screenX, screenY }), true);

function entered(store, id, event) {
  const rests = ({ screenX, screenY }) => screenX === pressedAt?.screenX && screenY === pressedAt.screenY;
  if (!rests(event)) return hover(store, id);
  event.currentTarget.addEventListener("pointermove", (moved) => !rests(moved) && hover(store, id));
}

function bar({ share, widest }) {
  const width = `${((Math.abs(share) / (widest || 1)) * 100).toFixed(1)}%`;
  return h("span", {
    class: "row-bar",
    "aria-hidden": "true",
    style: { width, background: css(signedColour(share, palette()), 0.22) },
  });
}

function amount({ share, weight }) {
  const title = `${signed(share)} of the target's input, direct effect ${signed(weight)}`;
  return h("span", { class: "node-amount", title }, signedPercent(share));
}
