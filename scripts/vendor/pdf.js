/* A figure as PDF, with the glyphs that it needs embedded. Loaded when the first one is saved. */

import "svg2pdf.js";
import { jsPDF } from "jspdf";
import regular from "@expo-google-fonts/inter/400Regular/Inter_400Regular.ttf";
import semibold from "@expo-google-fonts/inter/600SemiBold/Inter_600SemiBold.ttf";

/** The bytes of a PDF page of `width` × `height` points that holds the SVG element. */
export async function pdfOf(svg, width, height) {
  const page = new jsPDF({ unit: "pt", format: [width, height], orientation: width > height ? "landscape" : "portrait" });
  for (const [name, file, weight] of [["regular.ttf", regular, 400], ["semibold.ttf", semibold, 600]]) {
    page.addFileToVFS(name, file);
    page.addFont(name, "Inter", "normal", weight);
  }
  await page.svg(svg, { width, height });
  return page.output("arraybuffer");
}

/** Which of these characters the fonts have no glyph for. */
export function missingGlyphs(text) {
  const page = new jsPDF();
  page.addFileToVFS("regular.ttf", regular);
  page.addFont("regular.ttf", "Inter", "normal", 400);
  page.setFont("Inter", "normal", 400);
  const known = page.getFont().metadata.cmap.unicode.codeMap;
  return [...new Set(text)].filter((character) => character.trim() && !known[character.codePointAt(0)]);
}
