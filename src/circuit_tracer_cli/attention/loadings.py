"""How much of an edge goes through which attention head, exactly.

An edge is a sum over paths through the frozen network. There are five ways to group its paths:

- `arrive`: by the head that finally moves it to the target's position, and where from. A partition of the edge.
- `leave`: by the head that first moves it away from the source's position, and where to. Also a partition.
- `through`: everything that goes through a head, in any layer: what the edge would lose without it. A path counts once per head.
- `hops`: by the number of heads on the path.
- `chains` (`chains.py`): by the heads themselves, in order.

Kamath et al. (2025), "Tracing attention computation through feature interactions", give `arrive` for features in adjacent layers.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, get_args

import torch
from torch import Tensor

from circuit_tracer_cli.attention.chains import Chain, chains_of
from circuit_tracer_cli.attention.names import head_name
from circuit_tracer_cli.attention.prompt import FrozenPrompt, edge_of, freeze
from circuit_tracer_cli.attention.walks import (
    heads_of,
    pull,
    pull_in_place,
    pulled_through,
    push_in_place,
    skip_back,
)
from circuit_tracer_cli.attribution.linear import FoldedLayer, LinearEngine, Targets
from circuit_tracer_cli.errors import InvalidValue
from circuit_tracer_cli.graph.graph import Graph
from circuit_tracer_cli.replacement import ReplacementModel

if TYPE_CHECKING:
    import pandas

By = Literal["arrive", "leave", "through", "hops", "chains"]

STRONGEST = 10
"""Default number of heads to list for an edge."""

HELD_NUMBERS = 2**26
"""Largest number of elements of one kind (streams of a block of sources, cotangents of a block of targets) in memory at once."""


@dataclass(frozen=True, slots=True)
class HeadShare:
    """The part of an edge that goes through one head.

    `position` is the key that it looks at (`arrive`), the query that it sends to (`leave`), None for `through`.
    """

    layer: int
    head: int
    position: int | None
    value: float

    @property
    def name(self) -> str:
        """`L14H3`."""
        return head_name(self.layer, self.head)

    def to_dict(self) -> dict[str, Any]:
        """Return the record that `--json` prints."""
        found: dict[str, Any] = {"layer": self.layer, "head": self.head}
        if self.position is not None:
            found["position"] = self.position
        return {**found, "value": self.value}


@dataclass(frozen=True, slots=True)
class EdgeHeads:
    """The heads of one edge.

    Attributes:
        source, target: Ids of the nodes.
        weight: Weight of the edge in the graph.
        by: How paths are grouped.
        heads: The strongest heads, by absolute value.
        rest: `weight` minus the listed values; for `through`, the sum of the other heads.
        total: The sum over all heads, hops or chains.
        absolute: The sum of absolute values; many times the weight if heads cancel each other.
        hops: Parts of the edge by the number of heads on the path, from zero up.
        chains: The strongest chains of heads.
        same_position: True if source and target are at the same position, so that nothing has to be moved.
    """

    source: str
    target: str
    weight: float
    by: By
    heads: tuple[HeadShare, ...] = ()
    rest: float = 0.0
    total: float = 0.0
    absolute: float = 0.0
    hops: tuple[float, ...] = ()
    chains: tuple[Chain, ...] = ()
    same_position: bool = False

    @property
    def cancellation(self) -> float | None:
        """Sum of absolute values divided by the absolute weight; None for an edge of weight zero."""
        return self.absolute / abs(self.weight) if self.weight else None

    def to_dict(self) -> dict[str, Any]:
        """Return the record that `--json` prints."""
        found: dict[str, Any] = {
            "source": self.source, "target": self.target, "weight": self.weight, "by": self.by,
        }  # fmt: skip
        if self.by == "hops":
            found["hops"] = [{"n": n, "value": value} for n, value in enumerate(self.hops)]
        elif self.by == "chains":
            found["chains"] = [chain.to_dict() for chain in self.chains]
        else:
            found["heads"] = [share.to_dict() for share in self.heads]
        return {
            **found, "rest": self.rest, "total": self.total, "cancellation": self.cancellation,
            "same_position": self.same_position,
        }  # fmt: skip


@dataclass(frozen=True)
class HeadLoadings:
    """Head loadings of several edges, in the order of the request."""

    edges: tuple[EdgeHeads, ...]
    by: By

    def __len__(self) -> int:
        return len(self.edges)

    def __iter__(self) -> Iterator[EdgeHeads]:
        return iter(self.edges)

    def to_dict(self) -> dict[str, Any]:
        """Return the record that `--json` prints."""
        return {"edges": [edge.to_dict() for edge in self.edges]}

    def to_dataframe(self) -> pandas.DataFrame:
        """One row per edge and listed head (number of hops, chain)."""
        import pandas as pd

        rows = []
        for edge in self.edges:
            listed: list[dict[str, Any]] = [share.to_dict() for share in edge.heads]
            listed += [{"hops": n, "value": value} for n, value in enumerate(edge.hops)]
            listed += [chain.to_dict() for chain in edge.chains]
            rows += [
                {"source": edge.source, "target": edge.target, "weight": edge.weight, **one} for one in listed
            ]
        return pd.DataFrame(rows)


def head_loadings(
    graph: Graph,
    model: ReplacementModel,
    edges: Sequence[tuple[int | str, int | str]],
    by: By = "arrive",
    n: int = STRONGEST,
) -> HeadLoadings:
    """Return which attention heads carry edges of a graph.

    Args:
        graph: The graph, raw or pruned.
        model: The model and transcoders that it was made with.
        edges: Pairs of source and target, as node indices or ids.
        by: How the paths of an edge are grouped.
        n: Number of heads (or chains) to list for each edge; 0 for all heads.

    Raises:
        InvalidValue: There is no such node or edge, or no edge can begin or end at the node.
        ModelMismatch: The graph wasn't made with this model.
        UnsupportedArchitecture: The model's family has no closed form.
    """
    if by not in get_args(By):
        raise InvalidValue(f"unknown value by={by!r}", hint=f"choose {', '.join(get_args(By))}")
    pairs = [edge_of(graph, *edge) for edge in edges]
    return loadings(freeze(graph, model), pairs, by, n)


@torch.no_grad()
def loadings(
    prompt: FrozenPrompt, edges: Sequence[tuple[int, int]], by: By = "arrive", n: int = STRONGEST
) -> HeadLoadings:
    """`head_loadings` for a frozen prompt; `edges` are pairs (source, target) of node indices."""
    batch = _Batch.of(prompt, edges)
    if by == "hops":
        found = _hops(batch)
    elif by == "chains":
        found = [_chains(batch, edge, n) for edge in range(len(edges))]
    else:
        running = _Strongest(len(edges), n)
        {"arrive": _arrive, "leave": _leave, "through": _through}[by](batch, running)
        found = [_edge(batch, edge, by, running) for edge in range(len(edges))]
    return HeadLoadings(tuple(found), by)


@dataclass(frozen=True, slots=True)
class _Batch:
    """Edges for the engine: distinct sources sorted by layer, distinct targets, and the ends of each edge among them."""

    prompt: FrozenPrompt
    edges: Sequence[tuple[int, int]]
    weights: list[float]
    columns: Tensor  # (source)
    source_positions: Tensor  # (source)
    targets: Targets
    source_of: Tensor  # (edge) index into `columns`
    target_of: Tensor  # (edge) index into `targets`

    @classmethod
    def of(cls, prompt: FrozenPrompt, edges: Sequence[tuple[int, int]]) -> _Batch:
        """Make the record from pairs (source, target) of node indices."""
        sources = list(dict.fromkeys(source for source, _ in edges))
        ends = list(dict.fromkeys(target for _, target in edges))
        columns = prompt.source_columns(sources)
        order = torch.argsort(prompt.engine.columns.places(columns)[0], stable=True)
        place = {sources[index]: rank for rank, index in enumerate(order.tolist())}
        row = {target: index for index, target in enumerate(ends)}
        columns = columns[order]
        weights = _weights(prompt.graph, edges)
        return cls(
            prompt, edges, weights, columns, prompt.engine.columns.places(columns)[1], prompt.targets(ends),
            torch.tensor([place[source] for source, _ in edges], dtype=torch.int64),
            torch.tensor([row[target] for _, target in edges], dtype=torch.int64),
        )  # fmt: skip

    @property
    def engine(self) -> LinearEngine:
        return self.prompt.engine

    def edges_of(self, sources: slice) -> Tensor:
        """The edges `(n)` from some sources."""
        found: Tensor = (self.source_of >= sources.start) & (self.source_of < sources.stop)
        return found.nonzero().squeeze(1)

    def blocks(self, count: int, numbers_each: int) -> Iterator[slice]:
        """Runs of `count` items that each take a number of elements."""
        size = max(1, HELD_NUMBERS // max(1, numbers_each))
        return (slice(start, min(start + size, count)) for start in range(0, count, size))


def _weights(graph: Graph, edges: Sequence[tuple[int, int]]) -> list[float]:
    """Direct effects of edges in the graph; zero for a pair without an edge."""
    found: list[float] = []
    rows: dict[int, dict[int, float]] = {}
    for source, target in edges:
        if target not in rows:
            columns, values = graph.edges.row(target)
            rows[target] = dict(zip(columns.tolist(), values.tolist(), strict=True))
        found.append(rows[target].get(source, 0.0))
    return found


class _Strongest:
    """Collects the strongest shares of every edge, and the sums of all.

    Args:
        n_edges: Number of edges.
        n: Number of shares to keep of each; 0 for all.
    """

    def __init__(self, n_edges: int, n: int) -> None:
        self.n = n
        self.total = torch.zeros(n_edges, dtype=torch.float64)
        self.absolute = torch.zeros(n_edges, dtype=torch.float64)
        self._waiting: list[tuple[Tensor, Tensor, Tensor]] = []
        self._found: list[list[tuple[int, int, int, float]]] | None = None

    def add(self, edges: Tensor, values: Tensor, layer: int) -> None:
        """Add shares `values (edge, head, position)` of some edges at one layer; without positions the last axis has size 1."""
        if not len(edges):
            return
        shares = values.double().cpu()
        self.total.index_add_(0, edges, shares.sum((1, 2)))
        self.absolute.index_add_(0, edges, shares.abs().sum((1, 2)))
        n_edges, n_heads, width = shares.shape
        flat, keep = shares.reshape(n_edges, -1), min(self.n or n_heads * width, n_heads * width)
        top = flat.abs().topk(keep, dim=1).indices
        head, position = top // width, top % width
        labels = torch.stack([torch.full_like(head, layer), head, position], dim=2)
        self._waiting.append((edges, flat.gather(1, top), labels))

    def of(self, edge: int) -> list[tuple[int, int, int, float]]:
        """Layer, head, position and value of the strongest non-zero shares of an edge."""
        if self._found is None:
            self._found = self._sorted()
        found = self._found[edge]
        found.sort(key=lambda share: (-abs(share[3]), share[:3]))
        return found[: self.n] if self.n else found

    def _sorted(self) -> list[list[tuple[int, int, int, float]]]:
        """Return the collected shares, by edge."""
        found: list[list[tuple[int, int, int, float]]] = [[] for _ in range(len(self.total))]
        for edges, values, labels in self._waiting:
            for edge, row, names in zip(edges.tolist(), values.tolist(), labels.tolist(), strict=True):
                found[edge] += [(*name, value) for name, value in zip(names, row, strict=True) if value]
        return found


def _edge(batch: _Batch, edge: int, by: By, running: _Strongest) -> EdgeHeads:
    listed = [
        HeadShare(layer, head, None if by == "through" else position, value)
        for layer, head, position, value in running.of(edge)
    ]
    weight, total = batch.weights[edge], float(running.total[edge])
    whole = total if by == "through" else weight
    return _record(
        batch, edge, by, heads=tuple(listed), rest=whole - sum(share.value for share in listed), total=total,
        absolute=float(running.absolute[edge]),
    )  # fmt: skip


def _record(batch: _Batch, edge: int, by: By, **values: Any) -> EdgeHeads:
    source, target = batch.edges[edge]
    graph = batch.prompt.graph
    together = int(batch.source_positions[batch.source_of[edge]]) == int(
        batch.targets.positions[batch.target_of[edge]]
    )
    return EdgeHeads(
        graph.node_id(source),
        graph.node_id(target),
        batch.weights[edge],
        by,
        same_position=together,
        **values,
    )


def _arrive(batch: _Batch, running: _Strongest) -> None:
    """`Σ_{ℓ,h,k}` of pattern[p_t, k] ⟨z at p_t of what stays at p_t above, v[k]⟩ over `k ≠ p_t`."""
    engine, targets = batch.engine, batch.targets
    kept = dict(pull_in_place(engine, targets))
    n_pos = int(targets.positions.max()) + 1
    for block in batch.blocks(len(batch.columns), n_pos * engine.tokens.shape[1]):
        edges = batch.edges_of(block)
        for level in engine.sweep(batch.columns[block], n_pos):
            if level.layer == engine.n_layers:
                break
            pattern = engine.layers[level.layer].pattern
            for source in range(len(level.values)):
                own = edges[batch.source_of[edges] == block.start + source]
                rows = batch.target_of[own]
                at = targets.positions[rows].to(pattern.device)
                z = kept[level.layer][rows.to(pattern.device)]
                looks = pattern[:, level.first : n_pos].index_select(2, at)  # (kv_head, key, edge, group)
                products = torch.einsum("enga,kna->nekg", z, level.values[source])
                shares = (products * looks.transpose(1, 2)).permute(1, 0, 3, 2)  # (edge, kv_head, group, key)
                keys = torch.arange(level.first, n_pos, device=pattern.device)
                shares = shares * (keys != at[:, None])[:, None, None]
                whole = shares.new_zeros(*shares.shape[:3], n_pos)
                whole[..., level.first :] = shares
                running.add(own, whole.flatten(1, 2), level.layer)


def _leave(batch: _Batch, running: _Strongest) -> None:
    """`Σ_{ℓ,h,q}` of pattern[q, p_s] ⟨z[q], v of what has stayed at p_s⟩ over `q ≠ p_s`."""
    engine = batch.engine
    kept = dict(push_in_place(engine, batch.columns))
    n_pos = int(batch.targets.positions.max()) + 1
    for block in batch.blocks(len(batch.targets), n_pos * engine.tokens.shape[1]):
        edges = ((batch.target_of >= block.start) & (batch.target_of < block.stop)).nonzero().squeeze(1)
        chosen = batch.targets.select(torch.arange(block.start, block.stop))
        for level in pull(engine, chosen):
            pattern = engine.layers[level.layer].pattern
            wide = level.z.shape[1]
            for target in range(len(level.z)):
                own = edges[batch.target_of[edges] == block.start + target]
                if not len(own):
                    continue
                rows = batch.source_of[own]
                at = batch.source_positions[rows].to(pattern.device)
                values = kept[level.layer][rows.to(pattern.device)]
                seen = pattern[:, :, :wide].index_select(1, at)  # (kv_head, edge, query, group)
                products = torch.einsum("qnga,ena->neqg", level.z[target], values)
                shares = (products * seen).permute(1, 0, 3, 2)  # (edge, kv_head, group, query)
                queries = torch.arange(wide, device=pattern.device)
                shares = shares * (queries != at[:, None])[:, None, None]
                running.add(own, shares.flatten(1, 2), level.layer)


def _through(batch: _Batch, running: _Strongest) -> None:
    """`λ = Σ_q ⟨z[q], Σ_k pattern[q, k] v[k]⟩` of every head, with the full cotangent and the full stream."""
    engine, targets = batch.engine, batch.targets
    n_pos = int(targets.positions.max()) + 1
    width = engine.layers[0].W_O.shape[1] if engine.layers else 1
    for part in batch.blocks(len(targets), n_pos * width * max(1, engine.n_layers)):
        chosen = targets.select(torch.arange(part.start, part.stop))
        kept = {level.layer: level.z for level in pull(engine, chosen)}
        for block in batch.blocks(len(batch.columns), n_pos * width):
            edges = batch.edges_of(block)
            edges = edges[(batch.target_of[edges] >= part.start) & (batch.target_of[edges] < part.stop)]
            for level in engine.sweep(batch.columns[block], n_pos):
                if level.layer == engine.n_layers or not len(level.values):
                    continue
                z = kept[level.layer][:, level.first :]
                read = mixed(engine.layers[level.layer], level.values[:, : z.shape[1]], level.first)
                products = torch.einsum("sqnga,tqnga->stng", read, z).flatten(2)  # (source, target, head)
                own = edges[batch.source_of[edges] - block.start < len(read)]
                places = (batch.source_of[own] - block.start).to(products.device)
                rows = (batch.target_of[own] - part.start).to(products.device)
                running.add(own, products[places, rows][:, :, None], level.layer)


@torch.no_grad()
def strongest_look(prompt: FrozenPrompt, edge: tuple[int, int], layer: int, head: int) -> tuple[int, int]:
    """The query and the key with the largest part of what goes through a head on an edge `(source, target)`."""
    engine = prompt.engine
    target = prompt.targets([edge[1]])
    z = next(level.z[0] for level in pull(engine, target) if level.layer == layer)
    for level in engine.sweep(prompt.source_columns([edge[0]]), len(z)):
        if level.layer == layer and len(level.values):
            pattern, group = engine.layers[layer].pattern, z.shape[2]
            own = pattern[
                head // group, level.first : len(z), level.first : len(z), head % group
            ]  # (key, query)
            at = z[level.first :, head // group, head % group]
            shares = own * (level.values[0][:, head // group] @ at.T)
            key, query = divmod(int(shares.abs().argmax()), shares.shape[1])
            return query + level.first, key + level.first
    return len(z) - 1, len(z) - 1


def mixed(folded: FoldedLayer, values: Tensor, first: int) -> Tensor:
    """What heads read `(row, query, kv_head, group, d_head)` of `values (row, key, kv_head, d_head)`, from `first` on."""
    last = first + values.shape[1]
    return torch.einsum("nkqg,rkna->rqnga", folded.pattern[:, first:last, first:last], values)


def _hops(batch: _Batch) -> list[EdgeHeads]:
    """Parts of every edge by the number of heads on the path: cotangents are kept separate by it, `c[n] += Attnᵀ c[n - 1]`."""
    engine, targets = batch.engine, batch.targets
    n_pos, d_model = int(targets.positions.max()) + 1, engine.tokens.shape[1]
    parts = torch.zeros(len(batch.edges), engine.n_layers + 1, dtype=torch.float64)
    for block in batch.blocks(len(targets), n_pos * d_model * (engine.n_layers + 1)):
        chosen = targets.select(torch.arange(block.start, block.stop))
        edges = ((batch.target_of >= block.start) & (batch.target_of < block.stop)).nonzero().squeeze(1)
        for layer, G in _by_hops(engine, chosen):
            _contract_hops(batch, layer, G, edges, block.start, parts)
    return [
        _record(
            batch, edge, "hops", hops=tuple(row.tolist()), total=float(row.sum()),
            rest=batch.weights[edge] - float(row.sum()), absolute=float(row.abs().sum()),
        )
        for edge, row in enumerate(parts)
    ]  # fmt: skip


def _by_hops(engine: LinearEngine, targets: Targets) -> Iterator[tuple[int, Tensor]]:
    """Layer and `(hops, target, pos, d_model)` of the cotangents at the block's write point; -1 for the embedding."""
    n_pos, d_model = int(targets.positions.max()) + 1, engine.tokens.shape[1]
    G = engine.tokens.new_zeros(engine.n_layers + 1, len(targets), n_pos, d_model)
    _begin(engine, targets, engine.n_layers, G)
    for layer in range(engine.n_layers - 1, -1, -1):
        folded = engine.layers[layer]
        G = G.to(engine.devices[layer])
        yield layer, G
        skip = skip_back(folded, G, slice(n_pos))
        if not engine.weights.parallel:
            G = G.clone() if skip is None else G + skip
            _begin(engine, targets, layer, G)
        moved = torch.stack([pulled_through(folded, heads_of(folded, one)) for one in G[:-1]])
        G = torch.cat([G[:1], G[1:] + moved])
        if engine.weights.parallel:
            if skip is not None:
                G = G + skip
            _begin(engine, targets, layer, G)
    yield -1, G.to(engine.device)


def _begin(engine: LinearEngine, targets: Targets, layer: int, G: Tensor) -> None:
    here = (targets.layers == layer).nonzero().squeeze(1)
    if len(here):
        G[0, here.to(G.device), targets.positions[here].to(G.device)] += engine.directions(
            targets.select(here)
        ).to(G)


def _contract_hops(batch: _Batch, layer: int, G: Tensor, edges: Tensor, start: int, parts: Tensor) -> None:
    """Add the contribution of a layer's writes (the tokens for -1) to the parts of some edges."""
    engine = batch.engine
    layers, positions = engine.columns.places(batch.columns)
    if layer < 0:
        writing = (layers < 0).nonzero().squeeze(1)
        vectors = engine.tokens[positions[writing].to(engine.device)]
    else:
        writing, vectors = engine.decoders[layer].written_by(batch.columns, layers, positions)
    row_of = torch.full((len(batch.columns),), -1)
    row_of[writing] = torch.arange(len(writing))
    own = edges[(row_of[batch.source_of[edges]] >= 0) & (positions[batch.source_of[edges]] < G.shape[2])]
    rows = row_of[batch.source_of[own]].to(G.device)
    at = positions[batch.source_of[own]].to(G.device)
    found = (G[:, (batch.target_of[own] - start).to(G.device), at] * vectors.to(G)[rows]).sum(-1)
    parts.index_add_(0, own, found.T.double().cpu())


def _chains(batch: _Batch, edge: int, n: int) -> EdgeHeads:
    column = batch.columns[batch.source_of[edge]][None]
    target = batch.targets.select(batch.target_of[edge][None])
    found = chains_of(batch.engine, column, target, n or STRONGEST)
    listed = sum(chain.value for chain in found.chains)
    return _record(
        batch, edge, "chains", chains=found.chains, total=found.total, rest=batch.weights[edge] - listed,
        absolute=sum(abs(chain.value) for chain in found.chains),
    )  # fmt: skip
