/* Exchange of a transcoder set's labels: what a file would change. Pure. */

/** The labels of an exported file, or of pairs of code and text: `{code: {text, author, time_ms}}`. Throws an Error with a message for people. */
export function readLabelFile(text) {
  let document;
  try {
    document = JSON.parse(text);
  } catch {
    throw new Error("This file isn't JSON.");
  }
  const given = Array.isArray(document) ? pairs(document) : document?.labels;
  if (given === null || typeof given !== "object" || Array.isArray(given))
    throw new Error("This file has no labels. “Export shared labels” writes such files.");
  const labels = Object.entries(given).map(([code, label]) => [code, typeof label === "string" ? { text: label } : label]);
  const good = labels.filter(([code, label]) => /^\d+$/.test(code) && typeof label?.text === "string" && label.text !== "");
  if (good.length === 0) throw new Error("This file has no labels that can be read.");
  return { labels: Object.fromEntries(good), set: typeof document.set === "string" ? document.set : null, unread: labels.length - good.length };
}

function pairs(document) {
  return Object.fromEntries(document.filter((pair) => Array.isArray(pair) && pair.length === 2).map(([code, text]) => [String(code), text]));
}

/** What taking them in means: `{added, same, conflicts}`, a conflict with both labels of a feature. */
export function compareLabels(theirs, ours) {
  const found = { added: [], same: [], conflicts: [] };
  for (const [code, label] of Object.entries(theirs)) {
    if (!ours[code]) found.added.push({ code, theirs: label });
    else if (ours[code].text === label.text) found.same.push({ code });
    else found.conflicts.push({ code, theirs: label, ours: ours[code] });
  }
  return found;
}

/** The furthest moment from 1970 that a date can be, in milliseconds. */
const LAST_TIME = 8.64e15;

/** Who gave a label and when, as far as that is known. */
export function provenance({ author, time_ms: time }) {
  const when = Number.isFinite(time) && Math.abs(time) <= LAST_TIME ? new Date(time).toISOString().slice(0, 10) : null;
  return [author, when].filter(Boolean).join(", ") || "unknown";
}
