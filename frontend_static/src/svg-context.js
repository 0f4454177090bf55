/* A drawing context that writes SVG: what paints a canvas paints a figure too. Pure. */

const FULL_TURN = 2 * Math.PI;
const START = {
  fillStyle: "#000000",
  strokeStyle: "#000000",
  lineWidth: 1,
  lineCap: "butt",
  globalAlpha: 1,
  font: "10px sans-serif",
  textAlign: "start",
  textBaseline: "alphabetic",
};

/**
 * The part of a 2D canvas context that our drawings use, with `elements()` for what was drawn as an array of strings.
 * A path that is filled and then stroked becomes one element; circles, rectangles and texts stay what they are.
 */
export function svgContext() {
  const out = [];
  const stack = [];
  const context = { ...START };
  let [dash, transform, path, groups, clips] = [[], "", [], 0, 0];
  let filled = null;

  const command = (name, ...numbers) => path.push({ name, numbers });

  function draw(kind) {
    if (path.length === 0) return;
    const shape = shapeOf(path);
    if (kind === "stroke" && filled?.path === path && filled.alpha === context.globalAlpha) {
      out[filled.at] = element({ ...shape, attributes: { ...shape.attributes, ...filled.style, ...strokeStyle() } });
      return;
    }
    const style = kind === "fill" ? fillStyle() : { fill: "none", ...strokeStyle() };
    out.push(element({ ...shape, attributes: { ...shape.attributes, ...style } }));
    filled = kind === "fill" ? { path, at: out.length - 1, style, alpha: context.globalAlpha } : null;
  }

  const fillStyle = () => paint("fill", context.fillStyle, context.globalAlpha);
  const strokeStyle = () => ({
    ...paint("stroke", context.strokeStyle, context.globalAlpha),
    "stroke-width": round(context.lineWidth),
    ...(context.lineCap === "butt" ? {} : { "stroke-linecap": context.lineCap }),
    ...(dash.length ? { "stroke-dasharray": dash.join(" ") } : {}),
  });

  return Object.assign(context, {
    elements: () => out,
    beginPath() {
      path = [];
    },
    moveTo: (x, y) => command("M", x, y),
    lineTo: (x, y) => command(path.length ? "L" : "M", x, y),
    bezierCurveTo: (...numbers) => command("C", ...numbers),
    quadraticCurveTo: (...numbers) => command("Q", ...numbers),
    closePath: () => command("Z"),
    rect: (...numbers) => command("rect", ...numbers),
    arc: (x, y, radius, from, to) => command("arc", x, y, radius, from, to),
    fill: () => draw("fill"),
    stroke: () => draw("stroke"),
    fillRect(x, y, width, height) {
      const shape = { tag: "rect", attributes: { ...rectangle(x, y, width, height), ...fillStyle() } };
      out.push(element(shape));
      filled = null;
    },
    clip() {
      clips += 1;
      groups += 1;
      const shape = element(shapeOf(path));
      out.push(`<clipPath id="clip${clips}">${shape}</clipPath>`, `<g clip-path="url(#clip${clips})">`);
      filled = null;
    },
    setLineDash(next) {
      dash = [...next];
    },
    translate(x, y) {
      transform += `translate(${round(x)} ${round(y)})`;
    },
    rotate(angle) {
      transform += `rotate(${round((angle * 360) / FULL_TURN)})`;
    },
    fillText(text, x, y) {
      out.push(textElement(text, x, y, { ...fonts(context), ...fillStyle(), ...(transform ? { transform } : {}) }));
      filled = null;
    },
    save() {
      const kept = Object.fromEntries(Object.keys(START).map((key) => [key, context[key]]));
      stack.push({ kept, dash, transform, groups });
    },
    restore() {
      const last = stack.pop();
      if (!last) return;
      for (; groups > last.groups; groups -= 1) out.push("</g>");
      ({ dash, transform } = last);
      Object.assign(context, last.kept);
      filled = null;
    },
  });
}

function shapeOf(path) {
  const [{ name, numbers }] = path;
  if (path.length === 1 && name === "rect") return { tag: "rect", attributes: rectangle(...numbers) };
  if (path.length === 1 && name === "arc") {
    const [cx, cy, r] = numbers.map(round);
    return { tag: "circle", attributes: { cx, cy, r } };
  }
  const parts = path.map((part) => part.name + part.numbers.map(round).join(" "));
  return { tag: "path", attributes: { d: parts.join("") } };
}

function rectangle(x, y, width, height) {
  return { x: round(x), y: round(y), width: round(width), height: round(height) };
}

/** `fill` or `stroke` with its opacity apart, as every program that reads SVG understands it. */
export function paint(kind, colour, alpha = 1) {
  const match = /^rgb\((\d+)[ ,]+(\d+)[ ,]+(\d+)(?:\s*[/,]\s*([\d.]+))?\)$/.exec(colour);
  if (!match) return { [kind]: colour };
  const hex = match.slice(1, 4).map((part) => Number(part).toString(16).padStart(2, "0"));
  const opacity = round(alpha * Number(match[4] ?? 1));
  return { [kind]: `#${hex.join("")}`, ...(opacity < 1 ? { [`${kind}-opacity`]: opacity } : {}) };
}

const ANCHORS = { center: "middle", right: "end", end: "end" };
const BASELINES = { top: "text-before-edge", middle: "central" };

function fonts({ font, textAlign, textBaseline }) {
  const [, weight, size, family] = /^(?:(\d+|bold) )?([\d.]+)px (.*)$/.exec(font) ?? [null, "", 10, "sans-serif"];
  return {
    "font-size": round(Number(size)),
    "font-family": family.replaceAll('"', "'"),
    ...(weight ? { "font-weight": weight } : {}),
    ...(ANCHORS[textAlign] ? { "text-anchor": ANCHORS[textAlign] } : {}),
    ...(BASELINES[textBaseline] ? { "dominant-baseline": BASELINES[textBaseline] } : {}),
  };
}

/** A text element; `attributes` as in SVG. */
export function textElement(text, x, y, attributes) {
  const all = { x: round(x), y: round(y), ...attributes };
  return `<text${attributesText(all)}>${escapeXml(text)}</text>`;
}

/** An element; `children` are elements made before. */
export function element({ tag, attributes, children = [] }) {
  if (children.length > 0) return [`<${tag}${attributesText(attributes)}>`, ...children, `</${tag}>`].join("\n");
  return `<${tag}${attributesText(attributes)}/>`;
}

function attributesText(attributes) {
  return Object.entries(attributes)
    .map(([name, value]) => ` ${name}="${escapeXml(String(value))}"`)
    .join("");
}

/** Text that is safe in XML; characters that XML can't hold are left out. */
export function escapeXml(text) {
  const entities = { "&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;" };
  return Array.from(text)
    .filter((character) => !/[\u0000-\u0008\u000b\u000c\u000e-\u001f\ufffe\uffff]|^[\ud800-\udfff]$/.test(character))
    .join("")
    .replace(/[&<>"]/g, (character) => entities[character]);
}

/** A whole document of `width` × `height` pixels, or `millimetres` wide; `style` is a style sheet that it carries. */
export function svgDocument({ width, height, background, title, elements, millimetres = null, style = "" }) {
  const [w, h] = [round(width), round(height)];
  const [across, down] = millimetres ? [`${millimetres}mm`, `${round((millimetres * height) / width)}mm`] : [w, h];
  return [
    `<svg xmlns="http://www.w3.org/2000/svg" width="${across}" height="${down}" viewBox="0 0 ${w} ${h}">`,
    `<title>${escapeXml(title)}</title>`,
    ...(style ? [`<defs><style>${escapeXml(style)}</style></defs>`] : []),
    element({ tag: "rect", attributes: { width: w, height: h, ...paint("fill", background) } }),
    ...elements,
    "</svg>\n",
  ].join("\n");
}

function round(value) {
  return Number(value.toFixed(2));
}
