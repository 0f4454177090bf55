/* Labels around the link graph and next to the pointer: layers, tokens, outputs, the tooltip. */

import { h } from "../dom.js";
import { attributeTable } from "./attribute-table.js";
import { nodeLabel, nodePlace, number, ownInfluence, showToken, signedPercent, tokenLabel } from "../format.js";
import { clamp } from "../scales.js";
import { fontSize } from "../theme.js";

const LABEL_LENGTH = 14;
const BESIDE = 16;
/** Slanted labels that are nearer to each other touch. */
const SLANT = 17;

/** Room around the plot in pixels at the page's font size; slanted labels need as much as their text. */
export function margins(graph, slantedColumns = []) {
  const em = fontSize();
  const longest = (texts) =>
    Math.min(LABEL_LENGTH, Math.max(3, ...texts.map((text) => Array.from(showToken(text).trim()).length)));
  const slanted = (texts) => em * (0.7 + 0.4 * longest(texts));
  const outputs = graph
    ? graph.nodes.filter((node) => node.kind === "logit").map((node) => node.logitToken ?? "")
    : [];
  const tokens = slantedColumns.map((column) => graph.tokens[column.position] ?? "");
  const beyond = slantedColumns.map((column, i) => slanted([tokens[i]]) - column.x - column.width / 2);
  return {
    left: Math.max(3.5 * em, ...beyond),
    right: slanted(outputs),
    top: slanted(outputs) + 0.2 * em,
    bottom: Math.max(2.2 * em, tokens.length ? slanted(tokens) + 0.3 * em : 0),
  };
}

/** What is written around a scene: `{className, x, y, text, title}`. */
export function axisLabels(scene) {
  return [...rowLabels(scene), ...tokenLabels(scene), ...logitLabels(scene)];
}

function placed(className, x, y, text, title) {
  return { className, x, y, text, title };
}

/** Puts labels into an element. What is there already is moved rather than made again: it happens in every frame of a movement. */
export function placeLabels(element, labels) {
  labels.forEach(({ className, x, y, text, title }, i) => {
    const span = element.children[i] ?? element.appendChild(h("span"));
    if (span.className !== className) span.className = className;
    if (span.textContent !== text) span.textContent = text;
    if (span.title !== (title ?? "")) span.title = title ?? "";
    span.style.left = `${x.toFixed(1)}px`;
    span.style.top = `${y.toFixed(1)}px`;
  });
  while (element.children.length > labels.length) element.lastChild.remove();
}

function rowLabels({ layout, project, plot }) {
  const marks = layout.rows
    .map(({ label, centre }) => ({ label, y: project(0, centre)[1] }))
    .filter(({ label, y }) => label && y > plot.y - 2 && y < plot.y + plot.height + 2);
  const kept = [];
  for (const mark of [...marks.slice(-1), ...marks.slice(0, -1)])
    if (kept.every(({ y }) => Math.abs(y - mark.y) >= 0.95 * fontSize())) kept.push(mark);
  return kept.map(({ label, y }) => placed("row-label", plot.x - 8, y, label));
}

function tokenLabels({ graph, layout, project, plot, hovered }) {
  const y = plot.y + plot.height + 8;
  let free = -Infinity;
  const shown = layout.columns.map((column) => {
    const [left] = project(column.x, 0);
    const [right] = project(column.x + column.width, 0);
    return { ...column, left, right, width: right - left, middle: project(column.anchor, 0)[0] };
  });
  const seen = shown.filter(({ middle }) => middle >= plot.x && middle <= plot.x + plot.width);
  const flat = areFlat(graph, seen);
  const pointed = graph.nodes[hovered]?.position ?? -1;
  const hoveredAt = seen.find(({ position }) => position === pointed)?.middle ?? null;
  return seen.flatMap((column) => {
    const text = graph.tokens[column.position];
    if (text === undefined) return [];
    const named = column.position === pointed;
    const half = flat ? 0.3 * fontSize() * Array.from(showToken(text)).length : 0;
    const x = flat ? Math.max(column.left + half, Math.min(column.middle, column.right - half - 2)) : column.middle;
    if (!named && (x - free < SLANT || (hoveredAt !== null && Math.abs(x - hoveredAt) < SLANT))) return [];
    free = Math.max(free, x);
    const place = `Token ${column.position}: ${text}`;
    return [
      placed(`token-label${flat ? " flat" : ""}${named ? " named" : ""}`, x, y, tokenLabel(text, flat ? 40 : LABEL_LENGTH), place),
    ];
  });
}

/** Whether all columns are wide enough for their tokens to be written level; else all of them are slanted. */
export function areFlat({ tokens }, columns) {
  const widest = 0.585 * fontSize();
  return columns.every(({ position, width }) => width > widest * Array.from(showToken(tokens[position] ?? "")).length + 8);
}

function logitLabels({ graph, layout, visible, project, plot }) {
  const logits = graph.nodes.filter((node) => node.kind === "logit" && visible[node.index]);
  logits.sort((a, b) => b.probability - a.probability);
  const taken = [];
  return logits.flatMap((node) => {
    const [x, y] = project(layout.x[node.index], layout.y[node.index]);
    if (
      x < plot.x ||
      x > plot.x + plot.width ||
      y < plot.y ||
      taken.some((other) => Math.abs(other - x) < 13)
    )
      return [];
    taken.push(x);
    return [
      placed("logit-label", x, y - 8, tokenLabel(node.logitToken || node.id, LABEL_LENGTH), node.clerp),
    ];
  });
}

/** Fills and places the tooltip of the hovered node, or hides it. */
export function showTooltip(tooltip, scene, store, size) {
  const node = scene.graph.nodes[scene.hovered];
  tooltip.hidden = !node || !scene.visible[scene.hovered] || scene.selection.has(scene.hovered);
  if (tooltip.hidden) return;
  const [x, y] = scene.project(scene.layout.x[node.index], scene.layout.y[node.index]);
  const facts = [
    node.activation !== null && `activation ${number(node.activation)}`,
    node.influence !== null && `influence ${ownInfluence(node)}, cumulative ${number(node.influence)}`,
    ...linkFacts(scene, node),
  ].filter(Boolean);
  tooltip.replaceChildren(
    h("strong", {}, nodeLabel(node, store.get("labels"), store.get("featureLabels")[node.code])),
    h("span", {}, node.kind === "feature" ? `${nodePlace(node)} · ${node.feature}` : nodePlace(node)),
    ...facts.map((fact) => h("span", { class: "fact" }, fact)),
    ...(store.get("everyAttribute") ? [attributeTable(store, node) ?? h("span", {}, "Reading …")] : []),
  );
  place(tooltip, x, y, size);
}

/** Above the node, or below it where there is no room, so that its row stays in sight and with it, for most, the tokens' names. */
function place(tooltip, x, y, { width, height }) {
  tooltip.style.left = "0";
  const [w, h] = [tooltip.offsetWidth, tooltip.offsetHeight];
  const above = y - h - BESIDE;
  tooltip.style.left = `${clamp(x - w / 2, 4, Math.max(4, width - w - 4))}px`;
  tooltip.style.top = `${above >= 4 ? above : clamp(y + BESIDE, 4, Math.max(4, height - h - 4))}px`;
}

function linkFacts({ graph, selected }, node) {
  if (selected < 0 || selected === node.index) return [];
  const { source, target, share } = graph.links;
  const into = graph.inputs(selected).find((k) => source[k] === node.index);
  const out = graph.outputs(selected).find((k) => target[k] === node.index);
  return [
    into !== undefined && `${signedPercent(share[into])} of the selection's input`,
    out !== undefined && `gets ${signedPercent(share[out])} of its input from the selection`,
  ];
}
