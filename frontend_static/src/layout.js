/* Where the nodes of the link graph stand: tokens are columns, layers are rows. Pure. */

const MIN_SPACING = 20;
const COLUMN_FLOOR = 30;
/** Room for an output's slanted label above its square, and the most of the width that outputs may take. */
const OUTPUT_ROOM = 17;
const OUTPUTS_PART = 0.45;

/**
 * Positions of all visible nodes in a plot of `width` × `height`, y downwards.
 *
 * Every column has a least width, and beyond that one proportional to the largest number of nodes in any of its rows. Within a column and row, nodes stand
 * from right to left: logits by probability, others by influence.
 *
 * Returns `{x, y, columns, rows}`; a column's `anchor` is where its rightmost nodes stand; x and y are NaN for nodes that aren't visible.
 */
export function layoutGraph(graph, visible, width, height) {
  const groups = groupNodes(graph, visible);
  const columns = layoutColumns(groups, graph.tokens.length, width);
  const rows = layoutRows(graph.logitLayer, height);
  const x = new Float32Array(graph.nodes.length).fill(Number.NaN);
  const y = new Float32Array(graph.nodes.length).fill(Number.NaN);
  if (columns.length === 0) return { x, y, columns, rows };
  const padding = Math.min(8, Math.min(...columns.map((column) => column.width)) / 2);
  for (const column of columns) column.anchor = column.x + column.width - 1.5 * padding;
  const common = Math.min(...columns.map((column) => (column.width - padding) / column.count));
  for (const group of groups) {
    const column = columns[group.position - columns[0].position];
    const spacing = Math.min(Math.max(MIN_SPACING, common), (column.width - padding) / group.members.length);
    group.members.forEach((node, i) => {
      x[node.index] = column.x + column.width - padding - (padding / 2 + i * spacing);
      y[node.index] = rows[node.layer + 1].centre;
    });
  }
  return { x, y, columns, rows };
}

function groupNodes(graph, visible) {
  const groups = new Map();
  for (const node of graph.nodes) {
    if (!visible[node.index]) continue;
    const key = `${node.position},${node.layer}`;
    if (!groups.has(key)) groups.set(key, { position: node.position, layer: node.layer, members: [] });
    groups.get(key).members.push(node);
  }
  for (const group of groups.values()) group.members.sort(byImportance);
  return [...groups.values()];
}

/** Influence is a cumulative score: the smaller, the more important. */
function byImportance(a, b) {
  return (
    (b.probability ?? 0) - (a.probability ?? 0) ||
    (a.influence ?? 2) - (b.influence ?? 2) ||
    a.index - b.index
  );
}

function layoutColumns(groups, tokenCount, width) {
  if (groups.length === 0) return [];
  const first = Math.min(...groups.map((group) => group.position));
  const last = Math.max(tokenCount - 1, ...groups.map((group) => group.position));
  const counts = new Array(last - first + 1).fill(1);
  for (const group of groups) {
    const at = group.position - first;
    counts[at] = Math.max(counts[at], group.members.length);
  }
  const total = counts.reduce((sum, count) => sum + count, 0);
  const usual = Math.min(COLUMN_FLOOR, width / (2 * counts.length));
  const outputs = counts.map(() => 0);
  for (const { position, members } of groups)
    if (members[0].kind === "logit") outputs[position - first] = Math.min(OUTPUTS_PART * width, members.length * OUTPUT_ROOM + 12);
  const share = (at) => usual + ((width - usual * counts.length) * counts[at]) / total;
  const wide = counts.map((_, i) => i).filter((i) => outputs[i] > share(i));
  const taken = wide.reduce((sum, i) => sum + outputs[i], 0);
  const shrunk = (width - taken) / Math.max(1e-9, width - wide.reduce((sum, i) => sum + share(i), 0));
  let x = 0;
  return counts.map((count, i) => {
    const column = { position: first + i, count, x, width: wide.includes(i) ? outputs[i] : share(i) * (wide.length > 0 ? shrunk : 1) };
    x += column.width;
    return column;
  });
}

/** Row 0 is the embedding, row l + 1 is layer l, the last row holds the logits; each is a band from bottom to top. */
function layoutRows(logitLayer, height) {
  const count = logitLayer + 2;
  const band = height / count;
  return Array.from({ length: count }, (_, row) => ({
    row,
    top: height - (row + 1) * band,
    height: band,
    centre: height - (row + 0.5) * band,
    label: rowLabel(row, count, band),
  }));
}

function rowLabel(row, count, band) {
  if (row === 0) return "Emb";
  if (row === count - 1) return "Logits";
  const every = Math.max(1, Math.ceil(13 / band));
  return (row - 1) % (every > 1 ? every + (every % 2) : 1) === 0 ? `L${row - 1}` : "";
}

/** Finds the nearest placed node within a distance, in about constant time. `find(x, y, distance)` gives an index or −1. */
export function nearestLookup(xs, ys, cell = 32) {
  const cells = new Map();
  const key = (column, row) => column * 65_536 + row;
  for (let i = 0; i < xs.length; i += 1) {
    if (Number.isNaN(xs[i])) continue;
    const at = key(Math.floor(xs[i] / cell), Math.floor(ys[i] / cell));
    if (cells.has(at)) cells.get(at).push(i);
    else cells.set(at, [i]);
  }
  return (x, y, distance) => {
    let best = -1;
    let bestSquare = distance * distance;
    const reach = Math.ceil(distance / cell);
    const [column, row] = [Math.floor(x / cell), Math.floor(y / cell)];
    for (let c = column - reach; c <= column + reach; c += 1) {
      for (let r = row - reach; r <= row + reach; r += 1) {
        for (const i of cells.get(key(c, r)) ?? []) {
          const square = (xs[i] - x) ** 2 + (ys[i] - y) ** 2;
          if (square < bestSquare) [best, bestSquare] = [i, square];
        }
      }
    }
    return best;
  };
}
