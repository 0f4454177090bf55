/* The report of a validation that a graph carries, `metadata.validation`, as people read it. Pure. */

import { number } from "./format.js";

const WORDS = Object.freeze({ pass: "holds", warn: "weak", fail: "doesn't hold", info: "no verdict" });
const WORST_FIRST = ["fail", "warn", "pass", "info"];

/**
 * `{date, checks, counts, worst}` with `{name, label, value, verdict, word, detail}` for each check, or null without a report. What a report lacks is
 * left out, and a verdict that isn't known is none.
 */
export function readReport(metadata) {
  const report = metadata?.validation;
  if (report === null || typeof report !== "object" || !Array.isArray(report.checks)) return null;
  const checks = report.checks.filter((check) => check !== null && typeof check === "object").map(readCheck);
  if (checks.length === 0) return null;
  const counts = Object.fromEntries(WORST_FIRST.map((verdict) => [verdict, checks.filter((check) => check.verdict === verdict).length]));
  return { date: readDate(report.date), checks, counts, worst: WORST_FIRST.find((verdict) => counts[verdict] > 0) };
}

function readCheck({ name, label, value, unit, verdict, detail }) {
  const known = typeof verdict === "string" && Object.hasOwn(WORDS, verdict) ? verdict : "info";
  return {
    name: String(name ?? label ?? "check"),
    label: String(label ?? name ?? "Check"),
    value: Number.isFinite(value) ? [amount(value), unit].filter(Boolean).join(unit === "%" ? "\u202f" : " ") : "–",
    verdict: known,
    word: WORDS[known],
    detail: typeof detail === "string" ? detail : "",
  };
}

function amount(value) {
  if (value === 0 || Math.abs(value) >= 0.001) return number(value);
  const [digits, power] = value.toExponential(1).split("e-");
  return `${digits} × 10⁻${[...power].map((digit) => "⁰¹²³⁴⁵⁶⁷⁸⁹"[digit]).join("")}`;
}

function readDate(date) {
  const time = typeof date === "string" ? Date.parse(date) : Number.NaN;
  return Number.isNaN(time) ? null : new Date(time).toISOString().slice(0, 10);
}

/** The one word of the top bar: how the whole report is to be taken. */
export function headline({ worst, counts, checks }) {
  const judged = checks.length - counts.info;
  return { pass: "validated", warn: "validated, weak", fail: "validation fails", info: "measured" }[worst] + (judged > 0 ? ` ${counts.pass}/${judged}` : "");
}
