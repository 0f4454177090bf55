/* Pictures of panels as files: SVG as drawn, or PNG made from that. */

import { download } from "./download.js";
import { fontSize, palette } from "./theme.js";
import { css } from "./scales.js";
import { svgContext, svgDocument, textElement } from "./svg-context.js";
import { fileName } from "./transfer.js";

const DENSITY = 2;
const MOST_PIXELS = 8192;

/** `{family, mono, size}` of the page's text. */
export function pageFonts() {
  const style = window.getComputedStyle(document.documentElement);
  const family = (name) => style.getPropertyValue(name).trim().replaceAll('"', "'");
  return { family: family("--font"), mono: family("--mono"), size: fontSize() };
}

/**
 * Saves a picture. `figure` is `{width, height, elements}` or null where nothing is drawn; `kind` is `svg` or `png`, `part` goes into the
 * file's name.
 */
export async function saveFigure(store, figure, kind, part) {
  const graph = store.get("graph");
  if (!figure || !graph) return store.set({ notice: "There is nothing to save yet." });
  const title = `${graph.metadata.prompt ?? ""} · ${part}`;
  const text = svgDocument({ ...figure, background: css(palette().surface), title });
  const name = fileName(store.get("slug"), `-${part}.${kind}`);
  if (kind === "svg") return download(name, text, "image/svg+xml");
  try {
    download(name, await toPng(text, figure), "image/png");
  } catch {
    store.set({ notice: "The browser couldn't make a PNG of this; save it as SVG." });
  }
}

async function toPng(text, { width, height }) {
  const density = Math.min(DENSITY, MOST_PIXELS / Math.max(width, height));
  const address = URL.createObjectURL(new Blob([text], { type: "image/svg+xml" }));
  try {
    const image = new Image();
    image.src = address;
    await image.decode();
    const canvas = document.createElement("canvas");
    Object.assign(canvas, { width: Math.round(width * density), height: Math.round(height * density) });
    canvas.getContext("2d").drawImage(image, 0, 0, canvas.width, canvas.height);
    return await new Promise((resolve, reject) =>
      canvas.toBlob((blob) => (blob ? resolve(blob) : reject(new Error("empty"))), "image/png"),
    );
  } finally {
    URL.revokeObjectURL(address);
  }
}

/** What functions that paint a canvas would paint, as SVG elements. */
export function painted(...paints) {
  const context = svgContext();
  paints.forEach((paint) => paint(context));
  return context.elements();
}

/** The labels around a plot as SVG texts. */
export function labelElements(labels) {
  const { family, mono, size } = pageFonts();
  const muted = css(palette().text);
  return labels.map(({ className, x: left, y: top, text }) => {
    const [x, y] = [left, top].map((value) => Number(value.toFixed(1)));
    const has = (name) => className.split(" ").includes(name);
    const font = { "font-size": (size * 0.88).toFixed(1), "font-family": has("row-label") ? family : mono };
    const turned = { transform: `rotate(-45 ${x} ${y})` };
    const place = has("row-label")
      ? { "text-anchor": "end", "dominant-baseline": "central" }
      : has("logit-label")
        ? turned
        : has("flat")
          ? { "text-anchor": "middle", "dominant-baseline": "text-before-edge" }
          : { "text-anchor": "end", "dominant-baseline": "central", ...turned };
    return textElement(text, x, y, { ...font, fill: hex(muted), ...place });
  });
}

function hex(colour) {
  const [r, g, b] = colour.match(/\d+/g).map(Number);
  return `#${[r, g, b].map((part) => part.toString(16).padStart(2, "0")).join("")}`;
}
