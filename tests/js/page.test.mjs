import assert from "node:assert/strict";
import { readdirSync, readFileSync, statSync } from "node:fs";
import { dirname, join, relative } from "node:path";
import { test } from "node:test";
import { fileURLToPath } from "node:url";

const ROOT = join(dirname(fileURLToPath(import.meta.url)), "../../frontend_static");
const files = (folder) =>
  readdirSync(folder, { withFileTypes: true }).flatMap((entry) =>
    entry.name === "vendor" || entry.name === "node_modules"
      ? []
      : entry.isDirectory()
        ? files(join(folder, entry.name))
        : [join(folder, entry.name)],
  );
const modules = files(join(ROOT, "src")).filter((path) => path.endsWith(".js"));
const read = (path) => readFileSync(path, "utf8");

test("every module is preloaded, so that a slow line isn't walked import by import", () => {
  const preloaded = [...read(join(ROOT, "index.html")).matchAll(/rel="modulepreload" href="([^"]+)"/g)].map(
    ([, href]) => href,
  );
  const libraries = ["vendor/d3.js", "vendor/dagre.js"];
  assert.deepEqual(preloaded.sort(), [...modules.map((path) => relative(ROOT, path)), ...libraries].sort());
});

test("the page loads every style sheet, and none grows too long to read", () => {
  const loaded = [...read(join(ROOT, "index.html")).matchAll(/rel="stylesheet" href="([^"]+)"/g)].map(([, href]) => href);
  const sheets = files(ROOT).filter((path) => path.endsWith(".css"));
  assert.deepEqual(loaded.toSorted(), sheets.map((path) => relative(ROOT, path)).sort());
  for (const path of sheets) assert.ok(read(path).split("\n").length <= 400, path);
});

test("no file names another host or holds inline script", () => {
  for (const path of files(ROOT).filter((name) => /\.(js|html|css)$/.test(name))) {
    if (path.endsWith("/neuronpedia.js")) continue; // An address to follow, never to fetch.
    assert.doesNotMatch(read(path).replaceAll("http://www.w3.org/2000/svg", ""), /https?:\/\//, path);
  }
  assert.doesNotMatch(read(join(ROOT, "index.html")), /<script(?![^>]*\bsrc=)|\son\w+=|style="/);
});

test("text never becomes markup", () => {
  for (const path of [...modules, join(ROOT, "main.js")]) {
    assert.doesNotMatch(
      read(path),
      /innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|new Function/,
      path,
    );
  }
});

test("only api.js fetches, and pure files import no panels", () => {
  for (const path of modules) {
    const name = relative(join(ROOT, "src"), path);
    if (name !== "api.js") assert.doesNotMatch(read(path), /\bfetch\(|XMLHttpRequest|WebSocket/, name);
    if (!name.startsWith("panels/") && name !== "keyboard.js")
      assert.doesNotMatch(read(path), /from "\.\/panels\//, name);
  }
});

test("modules stay small", () => {
  for (const path of modules) {
    assert.ok(read(path).split("\n").length <= 400, path);
    assert.ok(statSync(path).size < 30_000, path);
  }
});
