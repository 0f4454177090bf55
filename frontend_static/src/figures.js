/* Pictures of panels as files: SVG as drawn, or PNG or PDF made from that. */

import { download } from "./download.js";
import { fontSize, printPalette } from "./theme.js";
import { css } from "./scales.js";
import { svgContext, svgDocument, textElement } from "./svg-context.js";
import { fileName } from "./transfer.js";

const DENSITY = 2;
const MOST_PIXELS = 8192;
const PRINT_DENSITY = 300 / 25.4;
const POINTS = 72 / 25.4;
const FAMILY = "Inter";

/** The font of figures, which files of all kinds carry with them. */
export const FIGURE_FONT = `${FAMILY}, Helvetica, Arial, sans-serif`;

/** `{size}` of the page's text. */
export function pageFonts() {
  return { family: FIGURE_FONT, mono: FIGURE_FONT, size: fontSize() };
}

/**
 * Saves a picture, on white. `figure` is `{width, height, elements}` or null where nothing is drawn; `kind` is `svg`, `png` or `pdf`, `millimetres` the
 * width on paper (as on the screen without one), `part` goes into the file's name.
 */
export async function saveFigure(store, figure, { kind, millimetres = null }, part) {
  const graph = store.get("graph");
  if (!figure || !graph) return store.set({ notice: "There is nothing to save yet." });
  const title = `${graph.metadata.prompt ?? ""} · ${part}`;
  const name = fileName(store.get("slug"), `-${part}.${kind}`);
  const document = { ...figure, background: css(printPalette().surface), title, millimetres };
  try {
    if (kind === "pdf") return await savePdf(store, name, document);
    const text = svgDocument({ ...document, style: await fontStyle(figure.elements.join("")) });
    if (kind === "svg") return download(name, text, "image/svg+xml");
    download(name, await toPng(text, figure, millimetres), "image/png");
  } catch {
    store.set({ notice: `The browser couldn't make a ${kind.toUpperCase()} of this; save it as SVG.` });
  }
}

/** The parts of the font that have the text's characters, as a style sheet. */
async function fontStyle(text) {
  const { FONT_PARTS } = await import("../vendor/figure-fonts.js");
  const used = new Set(Array.from(text, (character) => character.codePointAt(0)));
  const covers = (range) =>
    range.split(",").some((part) => {
      const [low, high] = part.trim().replace("U+", "").split("-").map((digits) => Number.parseInt(digits, 16));
      return [...used].some((code) => code >= low && code <= (high ?? low));
    });
  return FONT_PARTS.filter(({ range }) => covers(range))
    .map(({ weight, range, address }) => `@font-face{font-family:${FAMILY};font-weight:${weight};unicode-range:${range};src:url(${address})}`)
    .join("");
}

async function savePdf(store, name, document) {
  const { pdfOf, missingGlyphs } = await import("../vendor/pdf.js");
  const width = document.millimetres ? document.millimetres * POINTS : document.width * 0.75;
  const shown = new DOMParser().parseFromString(svgDocument(document), "image/svg+xml");
  const bytes = await pdfOf(shown.documentElement, width, (width * document.height) / document.width);
  download(name, new Blob([bytes], { type: "application/pdf" }), "application/pdf");
  const missing = missingGlyphs([...shown.querySelectorAll("text")].map((text) => text.textContent).join(""));
  if (missing.length > 0) store.set({ notice: `The PDF's font has no ${missing.slice(0, 8).join(" ")}; save it as SVG or PNG to keep them.` });
}

async function toPng(text, { width, height }, millimetres) {
  const wished = millimetres ? (millimetres * PRINT_DENSITY) / width : DENSITY;
  const density = Math.min(wished, MOST_PIXELS / Math.max(width, height));
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
  const muted = css(printPalette().text);
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
