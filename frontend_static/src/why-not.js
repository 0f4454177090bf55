/* Why one output and not another: sources sorted by their direct effects on the two, with sums that add up, as `why-not` does. Pure. */

import { fileGraph } from "./graph.js";

/** The lists by name, with their titles. */
export const LISTS = Object.freeze([
  ["both", (answer, other) => `Pushes both ${answer} and ${other}`],
  ["answerOnly", (answer) => `Pushes ${answer} only`],
  ["otherDown", (answer, other) => `Holds ${other} down`],
  ["otherOnly", (answer, other) => `Pushes ${other} only`],
  ["answerDown", (answer) => `Holds ${answer} down`],
]);

/** What a source with these effects adds to the difference of the two logits, by list; the five add up to `answer - other`. */
export function contributions(answer, other) {
  const both = answer > 0 && other > 0;
  return {
    both: both ? answer - other : 0,
    answerOnly: !both && answer > 0 ? answer : 0,
    otherDown: other < 0 ? -other : 0,
    otherOnly: !both && other > 0 ? -other : 0,
    answerDown: answer < 0 ? answer : 0,
  };
}

/**
 * `{difference, lists, rest}` of two outputs of the file: `lists` has, by name, `{sum, count, strongest: [{index, value, answer, other}]}`.
 * `rest` is what no link of the file carries; it and `difference` are null where a probability isn't known.
 */
export function whyNot(graph, { a, b }, most = 8) {
  const file = fileGraph(graph);
  const effects = new Map();
  [a, b].forEach((node, side) => {
    for (const k of file.inputs(node.index)) {
      const entry = effects.get(file.links.source[k]) ?? [0, 0];
      entry[side] += file.links.weight[k];
      effects.set(file.links.source[k], entry);
    }
  });
  const lists = Object.fromEntries(LISTS.map(([name]) => [name, { sum: 0, count: 0, strongest: [] }]));
  for (const [index, [answer, other]] of effects) {
    for (const [name, value] of Object.entries(contributions(answer, other))) {
      if (value === 0) continue;
      lists[name].sum += value;
      lists[name].count += 1;
      lists[name].strongest.push({ index, value, answer, other });
    }
  }
  for (const list of Object.values(lists)) {
    list.strongest.sort((one, two) => Math.abs(two.value) - Math.abs(one.value) || one.index - two.index);
    list.strongest.splice(most);
  }
  const known = a.probability > 0 && b.probability > 0;
  const difference = known ? Math.log(a.probability) - Math.log(b.probability) : null;
  const sum = Object.values(lists).reduce((total, list) => total + list.sum, 0);
  return { difference, lists, rest: known ? difference - sum : null };
}
