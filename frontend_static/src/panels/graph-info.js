/* Everything that the file says about the graph: how it was made, with what settings, and how good it is. */

import { h } from "../dom.js";
import { number } from "../format.js";
import { validationSection } from "./validation-report.js";

/** A dialog; `open()` fills it anew. */
export function graphInfo(store) {
  const body = h("div", { class: "info-body" });
  const dialog = h(
    "dialog",
    { class: "sheet info", "aria-label": "About this graph" },
    body,
    h("form", { method: "dialog" }, h("button", { class: "small" }, "Close")),
  );
  dialog.addEventListener("click", (event) => event.target === dialog && dialog.close());
  const open = () => {
    const graph = store.get("graph");
    if (!graph) return;
    body.replaceChildren(h("h2", {}, "About this graph"), ...sections(graph));
    dialog.showModal();
  };
  return { dialog, open };
}

function sections(graph) {
  const { metadata } = graph;
  const info = metadata.info ?? {};
  return [
    section("Graph", [
      ["Name", metadata.slug],
      ["Prompt", metadata.prompt],
      ["Description", info.description],
      ["Made by", info.creator_name],
      ["Made on", date(info.create_time_ms)],
      ["Program", [info.generator?.name, info.generator?.version].filter(Boolean).join(" ")],
      ["In a terminal", metadata.command],
      ["Nodes", counts(graph)],
      ["Links", graph.links.count.toLocaleString("en")],
    ]),
    section("Model and transcoders", [
      ["Model", info.model],
      ["Transcoders", info.transcoder_set ?? metadata.scan],
      ["Set", metadata.scan === info.transcoder_set ? null : metadata.scan],
      ...(metadata.transcoder_list ?? []).map((name, layer) => [`Layer ${layer}`, name]),
      ["Neuronpedia set", metadata.feature_details?.neuronpedia_source_set],
    ]),
    section("Scores", [
      ["Replacement", score(metadata, "replacement")],
      ["Completeness", score(metadata, "completeness")],
    ]),
    validationSection(metadata),
    section("Settings of the attribution", settings(metadata.generation_settings)),
    section("Pruning", settings({ node_threshold: metadata.node_threshold, ...metadata.pruning_settings })),
  ].filter(Boolean);
}

function section(title, pairs) {
  const rows = pairs.filter(([, value]) => value !== null && value !== undefined && value !== "");
  if (rows.length === 0) return null;
  return h(
    "section",
    {},
    h("h3", {}, title),
    h("dl", {}, ...rows.flatMap(([name, value]) => [h("dt", {}, name), h("dd", { dir: "auto" }, String(value))])),
  );
}

function settings(values) {
  return Object.entries(values ?? {}).map(([key, value]) => [
    key.replaceAll("_", " "),
    value !== null && typeof value === "object" ? JSON.stringify(value) : value,
  ]);
}

function score(metadata, name) {
  const found = { ...metadata.scores, ...metadata.info, ...metadata };
  const value = found[`${name}_score`] ?? found[name];
  return Number.isFinite(value) ? number(value) : null;
}

function counts(graph) {
  const names = { feature: "features", error: "errors", token: "tokens", logit: "outputs" };
  const found = Object.entries(names).map(([kind, name]) => [
    graph.nodes.reduce((sum, node) => sum + (node.kind === kind ? 1 : 0), 0),
    name,
  ]);
  return found
    .filter(([count]) => count > 0)
    .map(([count, name]) => `${count.toLocaleString("en")} ${name}`)
    .join(", ");
}

function date(milliseconds) {
  if (!Number.isFinite(milliseconds)) return null;
  return new Date(milliseconds).toISOString().replace("T", " ").slice(0, 16);
}
