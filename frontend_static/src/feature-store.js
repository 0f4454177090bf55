/* Feature records that were read, and requests under way; the least recently used are dropped. Pure but for `fetchFeature`. */

const KEPT = 200;

/**
 * A store over `fetchFeature(layer, feature) -> {record, reason, hint, link}`.
 *
 * `read` gives the record, or null; `about` the rest of the answer, once it has been read. `scope()` tells transcoder sets apart:
 * two graphs' features of the same number needn't be the same.
 */
export function createFeatureStore(fetchFeature, { onRecord = () => {}, scope = () => "" } = {}) {
  const answers = new Map();
  const waiting = new Map();
  const keyOf = (layer, feature) => `${scope()}/${layer}/${feature}`;

  function keep(key, answer) {
    answers.delete(key);
    answers.set(key, answer);
    if (answers.size > KEPT) answers.delete(answers.keys().next().value);
  }

  return Object.freeze({
    known: (layer, feature) => answers.get(keyOf(layer, feature))?.record,
    about: (layer, feature) => answers.get(keyOf(layer, feature)) ?? {},
    read(layer, feature) {
      const key = keyOf(layer, feature);
      if (answers.has(key)) return Promise.resolve(answers.get(key).record);
      if (!waiting.has(key)) {
        const request = fetchFeature(layer, feature)
          .then((answer) => {
            keep(key, answer);
            if (answer.record) onRecord(layer, feature, answer.record);
            return answer.record;
          })
          .finally(() => waiting.delete(key));
        waiting.set(key, request);
      }
      return waiting.get(key);
    },
  });
}
