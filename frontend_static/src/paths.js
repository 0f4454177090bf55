/* The strongest chains of links from the prompt's tokens to the outputs, exactly as `circuit-tracer show` finds them. Pure. */

/**
 * The `count` strongest paths, strongest first: `{nodes, links, strength, sign}` with node indices from the token to the output.
 *
 * A path's strength is the product of its links' shares (each the part of all absolute input into its target), times the
 * probability of its output. `through` keeps the paths that pass one node; where that is an output, those that end there, and a difference
 * of outputs counts in full. Nodes that aren't visible are passed over.
 */
export function strongestPaths(graph, visible, { count = 10, through = -1 } = {}) {
  const ranks = rankOf(graph);
  const order = [...graph.nodes.keys()].filter((i) => visible[i]).sort((a, b) => ranks[a] - ranks[b] || a - b);
  const usable = (k) => visible[graph.links.source[k]] && visible[graph.links.target[k]] && flows(graph, ranks, k);
  const into = table(graph.nodes.length, count);
  for (const node of order) {
    if (graph.nodes[node].kind === "token") into.strength[node * count] = 1;
    else fill(graph, into, node, graph.inputs(node), graph.links.source, usable, count);
  }
  if (through < 0) return ends(graph, into, order.filter((node) => !graph.nodes[node].difference), count);
  if (isEnd(graph.nodes[through])) return ends(graph, into, [through], count);
  const outOf = table(graph.nodes.length, count);
  for (const node of order.reverse()) {
    outOf.strength[node * count] = graph.nodes[node].asTarget;
    if (graph.nodes[node].kind !== "logit") fill(graph, outOf, node, graph.outputs(node), graph.links.target, usable, count);
  }
  return joined(graph, into, outOf, through, count);
}

/** Tokens come first, then layers, then outputs; a link always leads to a later rank. */
function rankOf(graph) {
  return Int32Array.from(graph.nodes, (node) => (node.kind === "token" ? -1 : node.layer));
}

function flows(graph, ranks, link) {
  return ranks[graph.links.source[link]] < ranks[graph.links.target[link]];
}

/** Per node the best `count` continuations: strength, last link, and the place among those of the node at its other end. */
function table(nodes, count) {
  return {
    strength: new Float64Array(nodes * count),
    link: new Int32Array(nodes * count).fill(-1),
    place: new Int32Array(nodes * count),
  };
}

/** The best ways into (or out of) one node. Its links come strongest first, so that it can stop early. */
function fill(graph, best, node, links, otherEnd, usable, count) {
  const at = node * count;
  for (const link of links) {
    const share = Math.abs(graph.links.share[link]);
    if (share === 0 || share <= best.strength[at + count - 1]) break;
    if (!usable(link)) continue;
    const other = otherEnd[link] * count;
    for (let place = 0; place < count; place += 1) {
      const strength = best.strength[other + place] * share;
      if (strength === 0 || strength <= best.strength[at + count - 1]) break;
      insert(best, at, count, strength, link, place);
    }
  }
}

function insert(best, at, count, strength, link, place) {
  let i = at + count - 1;
  for (; i > at && best.strength[i - 1] < strength; i -= 1) {
    best.strength[i] = best.strength[i - 1];
    best.link[i] = best.link[i - 1];
    best.place[i] = best.place[i - 1];
  }
  best.strength[i] = strength;
  best.link[i] = link;
  best.place[i] = place;
}

function ends(graph, into, order, count) {
  return order
    .filter((node) => isEnd(graph.nodes[node]))
    .flatMap((node) =>
      Array.from({ length: count }, (_, place) => ({
        node,
        place,
        strength: into.strength[node * count + place] * weightOf(graph.nodes[node]),
      })),
    )
    .filter(({ strength }) => strength > 0)
    .sort((a, b) => b.strength - a.strength)
    .slice(0, count)
    .map(({ node, place, strength }) => path(graph, back(graph, into, node, place, count), strength));
}

/** Whether paths end at a node: an output, or a feature that the graph explains. */
function isEnd({ kind, asTarget }) {
  return kind === "logit" || asTarget > 0;
}

function weightOf({ difference, asTarget }) {
  return difference ? 1 : asTarget;
}

function joined(graph, into, outOf, through, count) {
  const found = [];
  for (let a = 0; a < count; a += 1) {
    for (let b = 0; b < count; b += 1) {
      const strength = into.strength[through * count + a] * outOf.strength[through * count + b];
      if (strength > 0) found.push({ a, b, strength });
    }
  }
  return found
    .sort((x, y) => y.strength - x.strength)
    .slice(0, count)
    .map(({ a, b, strength }) =>
      path(
        graph,
        [...back(graph, into, through, a, count), ...ahead(graph, outOf, through, b, count)],
        strength,
      ),
    );
}

function back(graph, into, node, place, count) {
  const links = [];
  for (let at = node * count + place; into.link[at] >= 0; ) {
    const link = into.link[at];
    links.push(link);
    at = graph.links.source[link] * count + into.place[at];
  }
  return links.reverse();
}

function ahead(graph, outOf, node, place, count) {
  const links = [];
  for (let at = node * count + place; outOf.link[at] >= 0; ) {
    const link = outOf.link[at];
    links.push(link);
    at = graph.links.target[link] * count + outOf.place[at];
  }
  return links;
}

function path(graph, links, strength) {
  const nodes = [graph.links.source[links[0]], ...links.map((link) => graph.links.target[link])];
  const sign = links.reduce((product, link) => product * Math.sign(graph.links.weight[link]), 1);
  return Object.freeze({ nodes: Object.freeze(nodes), links: Object.freeze(links), strength, sign });
}
