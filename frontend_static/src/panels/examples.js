/* Texts on which a feature is active: one line each, centred on the token where it is, shaded by activation. */

import { h } from "../dom.js";
import { joinTokens, mergeSpans, number, showToken } from "../format.js";
import { activationColour, css, textOn } from "../scales.js";
import { palette } from "../theme.js";

const DEFAULT_RANGE = [0, 1.4];

export function exampleGroups(record) {
  const groups = (record.examples_quantiles ?? []).filter((group) => group.examples?.length);
  if (groups.length === 0) return h("p", { class: "muted none" }, "The feature's file has no examples.");
  const range = Number.isFinite(record.act_max) ? [record.act_min ?? 0, record.act_max] : DEFAULT_RANGE;
  return h(
    "div",
    { class: "examples" },
    ...groups.map((group) =>
      h(
        "section",
        {},
        h("h3", {}, nameOf(group, groups)),
        ...group.examples.map((example) => exampleLine(example, range)),
      ),
    ),
  );
}

/** One group of all percentiles has nothing to be told apart from but the strongest. */
function nameOf({ quantile_name: name }, groups) {
  const percentiles = groups.filter((group) => /^percentile/i.test(group.quantile_name ?? ""));
  return percentiles.length === 1 && /\b0\D+100\b/.test(name ?? "") ? "Of any strength" : name || "Examples";
}

/** A click on the line folds the whole text out. */
function exampleLine(example, range) {
  const centre = example.train_token_ind ?? 0;
  const joined = joinTokens(example.tokens ?? [], example.tokens_acts_list ?? []);
  const spans = mergeSpans(joined, centre).map((span) => tokenSpan(span, range));
  const middle = spans.findIndex((span) => span.classList.contains("centre"));
  const at = middle < 0 ? 0 : middle;
  const line = h(
    "div",
    {
      class: `example${example.is_repeated_datapoint ? " repeated" : ""}`,
      title: example.is_repeated_datapoint
        ? "Also among the top examples. Click for the full text"
        : "Click for the full text",
      onclick: () => line.classList.toggle("open"),
    },
    h("div", { class: "before" }, h("bdi", {}, ...spans.slice(0, at))),
    h("div", { class: "after" }, spans[at] ?? "", h("bdi", {}, ...spans.slice(at + 1))),
  );
  return line;
}

function tokenSpan({ text, activation, isCentre }, [low, high]) {
  const span = h(
    "span",
    { class: isCentre ? "token centre" : "token" },
    text.replace(/[\n\r\t]/g, showToken),
  );
  if (activation > 0) {
    const colour = activationColour(activation, low, high, palette());
    span.style.background = css(colour);
    span.style.color = css(textOn(colour));
    span.title = number(activation);
  }
  return span;
}
