import assert from "node:assert/strict";
import { test } from "node:test";

import { headline, readReport } from "../../frontend_static/src/validation.js";

const check = (verdict, more = {}) => ({ name: verdict, label: verdict, value: 0.5, unit: null, verdict, detail: "d", ...more });
const report = (...checks) => readReport({ validation: { version: 1, date: "2026-01-31T12:00:00Z", checks } });

test("a report is counted, and its worst verdict is the headline's", () => {
  const all = report(check("pass"), check("info"), check("warn"), check("pass"));
  assert.deepEqual(all.counts, { fail: 0, warn: 1, pass: 2, info: 1 });
  assert.equal(headline(all), "validated, weak 2/3");
  assert.equal(headline(report(check("pass"))), "validated 1/1");
  assert.equal(headline(report(check("fail"), check("pass"))), "validation fails 1/2");
  assert.equal(headline(report(check("info"))), "measured");
  assert.equal(all.date, "2026-01-31");
});

test("numbers are short, also small ones, and have their units", () => {
  const values = report(
    check("pass", { value: 0.0000021 }),
    check("pass", { value: 0.72345, unit: "Spearman" }),
    check("pass", { value: null }),
    check("pass", { value: 0 }),
  ).checks.map(({ value }) => value);
  assert.deepEqual(values, ["2.1 × 10⁻⁶", "0.723 Spearman", "–", "0"]);
});

test("what a report lacks doesn't matter", () => {
  for (const validation of [undefined, null, 3, {}, { checks: 1 }, { checks: [] }, { checks: [null, 1] }]) assert.equal(readReport({ validation }), null);
  assert.equal(readReport(null), null);
  const [only] = readReport({ validation: { checks: [{ verdict: "toString" }] } }).checks;
  assert.deepEqual(only, { name: "check", label: "Check", value: "–", verdict: "info", word: "no verdict", detail: "" });
  assert.equal(readReport({ validation: { date: "soon", checks: [{}] } }).date, null);
});
