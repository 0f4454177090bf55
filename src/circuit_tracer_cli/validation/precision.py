"""Precision: the strongest edges of a 16-bit graph beside the same edges computed in float32."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from circuit_tracer_cli.attribution.attribute import Attribution, AttributionSettings
from circuit_tracer_cli.attribution.rows import BlockSize, feature_rows, largest_work
from circuit_tracer_cli.graph.graph import Graph
from circuit_tracer_cli.replacement import ReplacementModel
from circuit_tracer_cli.types import SilentProgress

SIXTEEN_BIT = ("bfloat16", "float16")


@dataclass(frozen=True, slots=True)
class Precision:
    """The strongest edges between features, errors and tokens, again in float32.

    Attributes:
        dtype: Of the graph.
        n_edges: Edges compared.
        n_gone: Edges whose source or target isn't active in float32.
        median_relative_error, max_relative_error: Over the edges compared, relative to the float32 weight.
    """

    dtype: str
    n_edges: int
    n_gone: int
    median_relative_error: float | None
    max_relative_error: float | None


def is_sixteen_bit(graph: Graph) -> bool:
    """Whether the graph was computed in 16 bits."""
    return graph.cfg.dtype in SIXTEEN_BIT


def strongest_edges(graph: Graph, count: int) -> tuple[Tensor, Tensor, Tensor]:
    """Targets, sources and weights of the `count` strongest edges into features."""
    edges = graph.edges.to("cpu")
    n_stored = int(edges.indptr[graph.layout.n_features])
    top = edges.values[:n_stored].abs().topk(min(count, n_stored)).indices
    rows = torch.searchsorted(edges.indptr, top, right=True) - 1
    return rows, edges.indices[top].long(), edges.values[top].double()


def measure_precision(graph: Graph, model: ReplacementModel, count: int) -> Precision:
    """Compute the rows of the strongest edges' targets anew with a float32 model."""
    rows, sources, weights = strongest_edges(graph, count)
    exact = _exact_weights(graph, model, rows, sources)
    there = ~exact.isnan()
    wrong = (weights - exact).abs()[there] / exact.abs()[there].clamp(min=1e-12)
    return Precision(
        dtype=str(graph.cfg.dtype),
        n_edges=int(there.sum()),
        n_gone=int((~there).sum()),
        median_relative_error=float(wrong.median()) if len(wrong) else None,
        max_relative_error=float(wrong.max()) if len(wrong) else None,
    )


@torch.no_grad()
def _exact_weights(graph: Graph, model: ReplacementModel, rows: Tensor, sources: Tensor) -> Tensor:
    """The weights `(n)` in float32; NaN where a feature isn't active."""
    attribution = Attribution(model, AttributionSettings(), "auto", SilentProgress())
    tokens = model.tokenize(graph.input_tokens)
    frozen = model.frozen_pass(tokens.ids)
    active = attribution.active(frozen, tokens)
    engine = attribution.engine(frozen, active, tokens)
    index = {feature: i for i, feature in enumerate(map(tuple, active.indices.tolist()))}
    features = graph.active_features[graph.selected_features].tolist()
    target_of = [index.get(tuple(features[row]), -1) for row in rows.tolist()]
    source_of = [_source(graph, features, index, len(active), node) for node in sources.tolist()]
    chosen = torch.tensor(sorted({target for target in target_of if target >= 0}), dtype=torch.int64)
    column_of = torch.argsort(engine.columns.nodes())
    computed: dict[int, Tensor] = {}
    for block in feature_rows(
        engine, model.transcoders, active, chosen, BlockSize(largest_work(model.device))
    ):
        computed.update(zip(block.nodes.tolist(), block.rows, strict=True))
    out = torch.full((len(rows),), torch.nan, dtype=torch.float64)
    for place, (target, source) in enumerate(zip(target_of, source_of, strict=True)):
        if target >= 0 and source >= 0:
            row, column = computed[target], int(column_of[source])
            out[place] = float(row[column]) if column < len(row) else 0.0
    return out


def _source(
    graph: Graph, features: list[list[int]], index: dict[tuple[int, ...], int], n_active: int, node: int
) -> int:
    """The node in the float32 graph with all features, or -1."""
    offset = graph.layout.error_offset
    return index.get(tuple(features[node]), -1) if node < offset else n_active + node - offset
