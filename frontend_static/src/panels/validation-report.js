/* The validation of a graph: one word in the top bar, every check in the dialog about the graph. */

import { h } from "../dom.js";
import { headline, readReport } from "../validation.js";

/** The button of the top bar, or null where the graph wasn't validated. `open()` shows the dialog. */
export function validationBadge(metadata, open) {
  const report = readReport(metadata);
  if (!report) return null;
  const lines = report.checks.map(({ label, value, word }) => `${label}: ${value} (${word})`);
  return h(
    "button",
    { class: "validation-badge", type: "button", "data-verdict": report.worst, title: lines.join("\n"), onclick: open },
    headline(report),
  );
}

/** The section of the dialog, or null. */
export function validationSection(metadata) {
  const report = readReport(metadata);
  if (!report) return null;
  const rows = report.checks.map(({ name, label, value, verdict, word, detail }) =>
    h(
      "tr",
      { "data-check": name },
      h("th", { scope: "row", dir: "auto" }, label),
      h("td", { class: "check-value" }, value),
      h("td", {}, h("span", { class: "verdict", "data-verdict": verdict }, word)),
      h("td", { class: "muted", dir: "auto" }, detail),
    ),
  );
  const head = ["Check", "Number", "Verdict", "What was measured"].map((text) => h("th", { scope: "col" }, text));
  return h(
    "section",
    { class: "validation" },
    h("h3", {}, "Validation on the model", report.date && h("span", { class: "muted" }, ` ${report.date}`)),
    h("table", {}, h("thead", {}, h("tr", {}, ...head)), h("tbody", {}, ...rows)),
  );
}
