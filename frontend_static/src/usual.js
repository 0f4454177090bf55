/* What usually drives a feature, from the examples of its set, beside this prompt's links. Pure. */

import { cantor } from "./graph.js";
import { sourceName } from "./heads.js";

const isDriver = (one) => Array.isArray(one) && one.length >= 4 && one.slice(0, 4).every(Number.isFinite);

/**
 * A feature's usual drivers, strongest first: `[{id, label, weight, together, here, isNode}]`. `weight` is the usual effect at the same
 * position without attention, `together` the share of the feature's tokens at which the driver is active too, `here` the
 * whole weight of the link at the node's own position, null where there is none.
 */
export function usualDrivers(graph, node, record, labels, featureLabels) {
  const drivers = Array.isArray(record?.usual_drivers) ? record.usual_drivers.filter(isDriver) : [];
  const links = new Map([...graph.inputs(node.index)].map((k) => [graph.links.source[k], graph.links.weight[k]]));
  return drivers.map(([layer, feature, weight, together]) => {
    const id = `${layer}_${feature}_${node.position}`;
    const index = graph.index(id);
    const known = labels[cantor(layer, feature)] || featureLabels[cantor(layer, feature)];
    const label = `L${layer} · ${index < 0 && known ? known : sourceName(graph, id, labels, featureLabels).label}`;
    return { id, label, weight, together, here: links.get(index) ?? null, isNode: index >= 0 };
  });
}
