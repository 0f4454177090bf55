/* Paints the link graph on 2D canvases. Independent of the store. */

import { css, mix, signedColour, strokeWidth } from "../scales.js";

const FULL_TURN = 2 * Math.PI;
const BACKGROUND_LINKS = 600;
/** The share from which a colour is as strong as it gets. */
const FULL = 0.4;

/**
 * A canvas context whose unit is a CSS pixel, cleared. One with `many` shapes is painted by the processor: sent to a graphics driver that is
 * itself software, 10,000 of them take seconds.
 */
export function prepare(canvas, width, height, { many = false } = {}) {
  const density = window.devicePixelRatio || 1;
  const [w, h] = [Math.round(width * density), Math.round(height * density)];
  if (canvas.width !== w || canvas.height !== h) Object.assign(canvas, { width: w, height: h });
  const context = canvas.getContext("2d", { willReadFrequently: many });
  context.setTransform(density, 0, 0, density, 0, 0);
  context.clearRect(0, 0, width, height);
  return context;
}

/** What a scene shows, whatever part of it is seen: links from weak to strong, and nodes in the order in which they cover each other. */
export function planScene(scene, backgroundLinks = BACKGROUND_LINKS) {
  const found = linksToDraw(scene, backgroundLinks);
  const { share } = scene.graph.links;
  const links = { ...found, strongest: found.numbers.reduce((most, k) => Math.max(most, Math.abs(share[k])), 1e-9) };
  const dimmed = links.focus && (scene.selection.size > 0 || Boolean(scene.path));
  const linked = scene.path ? pathColours : connectedColours;
  const colours = dimmed ? linked(scene.graph, links, scene.selection, scene.palette) : new Map();
  return { links, dimmed, colours };
}

/** How strong a share is beside the strongest that is shown, from 0 to 1, evenly to the eye. */
export function emphasis(share, strongest) {
  return Math.sqrt(Math.min(1, Math.abs(share) / strongest));
}

/** `{width, alpha, colour}` of a link. Those of a selection are told apart by how strong they are beside its strongest; without one, all stay in the background. */
export function linkLook(share, { focus, strongest }, palette) {
  if (!focus) {
    const alpha = 0.08 + 0.3 * Math.min(1, Math.abs(share) * 2);
    return { width: strokeWidth(share, 2.2), alpha, colour: signedColour(share, palette) };
  }
  const strength = emphasis(share, strongest);
  return { width: 0.5 + 3.6 * strength ** 1.5, alpha: 0.07 + 0.88 * strength ** 1.6, colour: relativeColour(share, strongest, palette) };
}

/** Colours up to the strongest share that is shown; a node's or link's own share is told in words. */
function relativeColour(share, strongest, palette) {
  return signedColour((FULL * share) / Math.max(strongest, 1e-9), palette);
}

/** Bands, column separators, links (at most the `most` strongest), nodes. */
export function drawGraph(context, scene, plan = planScene(scene), most = Infinity) {
  context.save();
  clipToPlot(context, scene);
  paintBands(context, scene);
  const { numbers } = plan.links;
  drawLinks(context, scene, { ...plan.links, numbers: numbers.slice(Math.max(0, numbers.length - most)) });
  drawNodes(context, scene, plan);
  context.restore();
}

/** How far glyphs may reach out of the plot: at its border only when all of it is seen, else they would be parts of others. */
export function overhang({ zoom }) {
  return zoom[1] > 1 ? 0 : 6;
}

function clipToPlot(context, scene) {
  const [{ plot }, room] = [scene, overhang(scene)];
  context.beginPath();
  context.rect(plot.x, plot.y - room, plot.width + room, plot.height + 2 * room);
  context.clip();
}

function paintBands(context, scene) {
  for (const { x0, y0, x1, y1, colour } of bandBoxes(scene)) {
    context.fillStyle = css(colour);
    context.fillRect(x0, y0, x1 - x0, y1 - y0);
  }
}

/** The rectangles behind links and nodes, in the plot's part that is seen: a band per layer, then the gaps between columns. */
export function bandBoxes(scene) {
  const { layout, project, palette, plot } = scene;
  const [low, high] = [plot.y - overhang(scene), plot.y + plot.height + overhang(scene)];
  const bands = layout.rows.map((row) => {
    const [, top] = project(0, row.top);
    const [, bottom] = project(0, row.top + row.height);
    const outer = row.row === 0 || row.row === layout.rows.length - 1;
    const end = top + Math.max(0.5, bottom - top - (bottom - top > 6 ? 1 : 0));
    return {
      x0: plot.x,
      y0: Math.max(low, top),
      x1: plot.x + plot.width,
      y1: Math.min(high, end),
      colour: outer ? palette.bandStrong : palette.band,
    };
  });
  const gaps = layout.columns.slice(1).map((column) => {
    const [x] = project(column.x, 0);
    const [end] = project(column.x + column.width, 0);
    const half = Math.min(1, (end - x) * 0.06);
    return { x0: x - half, y0: plot.y, x1: x + half, y1: plot.y + plot.height, colour: palette.surface };
  });
  const seen = ({ x0, y0, x1, y1 }) => y1 > y0 && x1 > plot.x && x0 < plot.x + plot.width;
  return [...bands, ...gaps].filter(seen);
}

/** `{numbers, focus}`: link numbers from weak to strong; without a focus they are only a background. */
function linksToDraw({ graph, visible, selection, pinned, linkType, sign, path }, backgroundLinks) {
  const { source, target, share } = graph.links;
  if (path) return { numbers: path, focus: true };
  const shown = (k) => visible[source[k]] && visible[target[k]] && signMatches(share[k], sign);
  if (selection.size > 0) {
    const within = (k) => selection.has(source[k]) && selection.has(target[k]);
    const own = [...selection]
      .flatMap((i) => [...graph.inputs(i), ...graph.outputs(i)])
      .filter((k) => shown(k) && !within(k));
    return { numbers: own.sort((a, b) => Math.abs(share[a]) - Math.abs(share[b])), focus: true };
  }
  if (pinned.size > 0) {
    const wanted = {
      input: (k) => pinned.has(target[k]),
      output: (k) => pinned.has(source[k]),
      either: (k) => pinned.has(source[k]) || pinned.has(target[k]),
      both: (k) => pinned.has(source[k]) && pinned.has(target[k]),
    }[linkType];
    const own = [...new Set([...pinned].flatMap((i) => [...graph.inputs(i), ...graph.outputs(i)]))];
    const numbers = own.filter((k) => shown(k) && wanted(k));
    if (numbers.length > 0)
      return { numbers: numbers.sort((a, b) => Math.abs(share[a]) - Math.abs(share[b])), focus: true };
  }
  const numbers = [];
  for (const k of graph.links.strongest) {
    if (numbers.length >= backgroundLinks) break;
    if (shown(k)) numbers.push(k);
  }
  return { numbers: numbers.reverse(), focus: false };
}

function signMatches(share, sign) {
  return sign === "all" || (sign === "positive" ? share > 0 : share < 0);
}

function drawLinks(context, scene, { numbers, ...shown }) {
  const { graph, layout, project, palette, scale } = scene;
  const { source, target, share } = graph.links;
  context.lineCap = "round";
  for (const k of numbers) {
    const [x0, y0] = project(layout.x[source[k]], layout.y[source[k]]);
    const [x1, y1] = project(layout.x[target[k]], layout.y[target[k]]);
    const { width, alpha, colour } = linkLook(share[k], shown, palette);
    context.strokeStyle = css(colour, alpha);
    context.lineWidth = scale * width;
    context.beginPath();
    context.moveTo(x0, y0);
    const bend = (y0 - y1) * 0.42;
    context.bezierCurveTo(x0, y0 - bend, x1, y1 + bend, x1, y1);
    context.stroke();
  }
}

function drawNodes(context, scene, plan) {
  const { project, radius } = scene;
  for (const mark of nodeMarks(scene, plan)) {
    const [x, y] = project(mark.x, mark.y);
    context.globalAlpha = mark.alpha;
    shape(context, mark.kind, x, y, radius * mark.factor + mark.add);
    if (mark.fill) {
      context.fillStyle = css(mark.fill);
      context.fill();
    }
    context.strokeStyle = css(mark.line, mark.fill ? 0.85 : 1);
    context.lineWidth = mark.width;
    context.stroke();
  }
  context.globalAlpha = 1;
}

/**
 * The glyphs of the visible nodes and the rings around some, in the order of painting: `{x, y, kind, factor, add, fill, line, width, alpha}`
 * in the plot's own lengths. A radius is `factor` times the scene's plus `add`; a ring has no fill.
 */
export function nodeMarks({ graph, layout, visible, palette, selection, pinned, marked, found, limit, scale }, { dimmed, colours }) {
  const marks = [[], [], [], []];
  for (const node of graph.nodes) {
    const i = node.index;
    if (!visible[i]) continue;
    const rank = selection.has(i) ? 3 : pinned.has(i) ? 2 : colours.has(i) ? 1 : 0;
    const special = rank > 0 || marked.has(i) || found.has(i);
    const strength = selection.has(i) || pinned.has(i) ? 1 : (colours.get(i)?.strength ?? 1);
    const [x, y, kind] = [layout.x[i], layout.y[i], node.kind];
    const fill = (node.diff ? null : colours.get(i)?.colour) ?? restingColour(node, palette, limit);
    const alpha = dimmed && !special ? 0.32 : 0.4 + 0.6 * Math.min(1, 1.6 * strength);
    const often = node.merged ? 0.55 + 0.65 * node.merged.frequency : 1;
    const factor = often * (special ? 0.75 + 0.5 * strength + (rank === 1 ? 0.35 * strength ** 2 : 0) : 1);
    const layer = marks[rank];
    layer.push({ x, y, kind, strength, factor, add: 0, fill, line: palette.outline, width: 0.9 * scale, alpha });
    if (!special) continue;
    const ring = { x, y, kind, factor: 1, add: 0, fill: null, alpha: 1 };
    if (pinned.has(i)) layer.push({ ...ring, factor: 1.25, line: palette.text, width: 2 * scale });
    if (found.has(i)) layer.push({ ...ring, add: 3 * scale, line: palette.group, width: 1.8 * scale });
    if (marked.has(i)) layer.push({ ...ring, add: 4 * scale, line: palette.group, width: 2.5 * scale });
    if (selection.has(i)) layer.push({ ...ring, add: 3.5 * scale, line: palette.accent, width: 2.5 * scale });
  }
  marks[1].sort((a, b) => (a.strength ?? 1) - (b.strength ?? 1));
  return marks.flat();
}

function connectedColours(graph, { numbers, strongest }, selection, palette) {
  const colours = new Map();
  const { share } = graph.links;
  for (const k of numbers) {
    const other = selection.has(graph.links.source[k]) ? graph.links.target[k] : graph.links.source[k];
    colours.set(other, { colour: relativeColour(share[k], strongest, palette), strength: emphasis(share[k], strongest) });
  }
  return colours;
}

/** Every node of a path has the colour of the link that leaves it, its end that of the last one. */
function pathColours(graph, { numbers }, _, palette) {
  const { source, target, share } = graph.links;
  return new Map(
    [...numbers].reverse().flatMap((k) => [target[k], source[k]].map((node) => [node, { colour: signedColour(share[k], palette), strength: 1 }])),
  );
}

/** What one of two compared graphs has alone is in its colour; else, the more of the logits a node explains, the darker it is. */
function restingColour(node, palette, limit) {
  if (node.diff && node.diff.side !== "both")
    return mix(palette.surface, node.diff.side === "a" ? palette.onlyA : palette.onlyB, node.diff.certain ? 1 : 0.6);
  if (node.kind === "logit")
    return mix(palette.surface, palette.text, 0.25 + 0.75 * Math.sqrt(node.probability));
  if (node.influence === null) return palette.surface;
  return mix(palette.surface, palette.text, 0.72 * (1 - Math.min(1, node.influence / limit)) ** 1.6);
}

function shape(context, kind, x, y, radius) {
  context.beginPath();
  if (kind === "feature") context.arc(x, y, radius, 0, FULL_TURN);
  else if (kind === "error") {
    const half = radius * 1.05;
    context.moveTo(x, y - half);
    context.lineTo(x + half, y);
    context.lineTo(x, y + half);
    context.lineTo(x - half, y);
    context.closePath();
  } else context.rect(x - radius * 0.9, y - radius * 0.9, radius * 1.8, radius * 1.8);
}

function ring(context, kind, x, y, radius, colour, width) {
  context.strokeStyle = css(colour);
  context.lineWidth = width;
  shape(context, kind, x, y, radius);
  context.stroke();
}

/** The rings of the nodes that are pointed at or lit, and the dashed ones of the same feature at other positions. */
export function drawHover(context, scene) {
  const node = scene.graph.nodes[scene.hovered];
  const lit = scene.lit ?? new Set();
  if (!node && lit.size === 0) return;
  const { x: left, y: top, width, height } = scene.plot;
  const own = (other) => other.index === node?.index || lit.has(other.index);
  const alike = (other) => own(other) || (node && node.code !== null && other.code === node.code);
  for (const other of scene.graph.nodes) {
    if (!scene.visible[other.index] || !alike(other)) continue;
    const [x, y] = scene.project(scene.layout.x[other.index], scene.layout.y[other.index]);
    if (x < left - 1 || x > left + width + 1 || y < top - 1 || y > top + height + 1) continue;
    context.setLineDash(own(other) ? [] : [2, 2]);
    ring(
      context,
      other.kind,
      x,
      y,
      scene.radius + 3.5 * scene.scale,
      scene.palette.accent,
      (own(other) ? 1.8 : 1.2) * scene.scale,
    );
  }
  context.setLineDash([]);
}
