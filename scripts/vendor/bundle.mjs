/* Makes the modules that the viewer loads out of the packages in node_modules: `node bundle.mjs FOLDER`. */

import { readFileSync, readdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { build } from "esbuild";

const [folder] = process.argv.slice(2);
const packageOf = (path) => /^node_modules\/((?:@[^/]+\/)?[^/]+)/.exec(path)?.[1];
const used = new Set();

async function bundle(names, loader = {}) {
  const { metafile } = await build({
    entryPoints: names.map((name) => `${name}.js`),
    outdir: folder,
    bundle: true,
    minify: true,
    format: "esm",
    target: "es2022",
    legalComments: "none",
    metafile: true,
    logLevel: "error",
    // What jsPDF would load to draw HTML, which nothing here asks it for.
    external: ["canvg", "html2canvas", "dompurify"],
    loader: { ".woff2": "dataurl", ...loader },
  });
  Object.keys(metafile.inputs).map(packageOf).filter(Boolean).forEach((name) => used.add(name));
}

await bundle(["dagre", "d3", "figure-fonts"]);
await bundle(["pdf"], { ".ttf": "base64" });

/* Addresses in jsPDF that it would open for a preview, which nothing here asks it for; a page of the viewer names no other host. */
const path = join(folder, "pdf.js");
let source = readFileSync(path, "utf8");
for (const address of [/https:\/\/cdnjs\.cloudflare\.com\/[^"'`]*/g, /http:\/\/jspdf\.default\.namespaceuri\//g]) {
  if (!address.test(source)) throw new Error(`pdf.js no longer holds ${address}`);
  source = source.replaceAll(address, "urn:unused");
}
writeFileSync(path, source);

const licences = [...used].sort().map((name) => {
  const home = join("node_modules", name);
  const { version, license } = JSON.parse(readFileSync(join(home, "package.json"), "utf8"));
  const file = readdirSync(home).find((entry) => /^(licen[cs]e|ofl|copying)/i.test(entry));
  return `${name} ${version} (${license})\n\n${file ? readFileSync(join(home, file), "utf8").trim() : "Its package holds no text of the licence."}\n`;
});
writeFileSync(join(folder, "LICENCES.txt"), licences.join(`\n${"-".repeat(80)}\n\n`));
