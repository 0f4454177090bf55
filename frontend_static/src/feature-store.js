/* Feature records that were read, and requests under way; the least recently used are dropped. Pure but for `fetchFeature`. */

const KEPT = 200;

export function createFeatureStore(fetchFeature, { onRecord = () => {}, available = () => true } = {}) {
  const records = new Map();
  const waiting = new Map();
  const keyOf = (layer, feature) => `${layer}/${feature}`;

  function keep(key, record) {
    records.delete(key);
    records.set(key, record);
    if (records.size > KEPT) records.delete(records.keys().next().value);
  }

  return Object.freeze({
    available,
    known: (layer, feature) => records.get(keyOf(layer, feature)),
    read(layer, feature) {
      const key = keyOf(layer, feature);
      if (records.has(key)) return Promise.resolve(records.get(key));
      if (!waiting.has(key)) {
        const request = fetchFeature(layer, feature)
          .then((record) => {
            keep(key, record);
            if (record) onRecord(layer, feature, record);
            return record;
          })
          .finally(() => waiting.delete(key));
        waiting.set(key, request);
      }
      return waiting.get(key);
    },
  });
}
