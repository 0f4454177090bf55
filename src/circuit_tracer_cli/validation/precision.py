"""Precision: rows of a graph computed with rounded numbers beside the same rows computed in float32, from the same files.

The strongest edges alone would look too good: they are large. So full rows of a sample of features are compared as well, with
edges from features and from errors separately, since an error is a small difference of two larger numbers.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from circuit_tracer_cli.attribution.attribute import ROUNDED, SIXTEEN_BIT, Attribution, AttributionSettings
from circuit_tracer_cli.attribution.rows import BlockSize, feature_rows, largest_work
from circuit_tracer_cli.graph.graph import Graph
from circuit_tracer_cli.replacement import ReplacementModel
from circuit_tracer_cli.types import SilentProgress
from circuit_tracer_cli.validation.pace import Phase
from circuit_tracer_cli.validation.statistics import sample


@dataclass(frozen=True, slots=True)
class Precision:
    """Edges of a graph between features, errors and tokens, recomputed in float32.

    Attributes:
        dtype: What the graph was rounded to, see `rounded_to`.
        n_edges: Number of strongest edges that were compared.
        n_gone: Number of strongest edges whose source or target isn't active in float32.
        median_relative_error, max_relative_error: Errors of the strongest edges, relative to the float32 weight.
        n_rows: Number of full rows compared.
        from_features: Median over rows of the L2 distance of all edges from features, relative to the float32 row.
        single_edge: The largest difference of an edge from a feature, relative to the largest of its row.
        from_errors: As `from_features`, for edges from error nodes.
        selection: Share of all active features that are active in only one of the two.
    """

    dtype: str
    n_edges: int
    n_gone: int
    median_relative_error: float | None
    max_relative_error: float | None
    n_rows: int = 0
    from_features: float | None = None
    single_edge: float | None = None
    from_errors: float | None = None
    selection: float | None = None


@dataclass(frozen=True, slots=True)
class RowSample:
    """The rows to recompute: the targets of the strongest edges into features, and a random sample of others.

    Args:
        strongest: Number of strongest edges.
        rows: Number of rows drawn.
        seed: Seed of the sample.
    """

    strongest: int
    rows: int = 24
    seed: int = 0

    def targets(self, graph: Graph) -> list[int]:
        """Feature nodes, the drawn ones first."""
        drawn = sample(list(range(graph.layout.n_features)), self.rows, self.seed)
        return list(dict.fromkeys([*drawn, *strongest_edges(graph, self.strongest)[0].tolist()]))


def rounded_to(graph: Graph) -> str | None:
    """What the numbers behind a graph's edges were rounded to: its dtype, its precision or both; None for float32."""
    precision = graph.metadata.get("precision")
    found = [name for name, known in ((graph.cfg.dtype, SIXTEEN_BIT), (precision, ROUNDED)) if name in known]
    return " with products in ".join(map(str, found)) or None


def strongest_edges(graph: Graph, count: int) -> tuple[Tensor, Tensor, Tensor]:
    """Targets, sources and weights of the `count` strongest edges into features."""
    edges = graph.edges.to("cpu")
    n_stored = int(edges.indptr[graph.layout.n_features])
    top = edges.values[:n_stored].abs().topk(min(count, n_stored)).indices
    rows = torch.searchsorted(edges.indptr, top, right=True) - 1
    return rows, edges.indices[top].long(), edges.values[top].double()


class ExactRows:
    """Rows of a graph's features computed by a float32 model, in the graph's order of nodes.

    Args:
        graph: Computed with rounded numbers.
        model: The same model and transcoders in float32.
    """

    def __init__(self, graph: Graph, model: ReplacementModel) -> None:
        attribution = Attribution(model, AttributionSettings(), "auto", SilentProgress())
        tokens = model.tokenize(graph.input_tokens)
        frozen = model.frozen_pass(tokens.ids)
        self.model, self.active = model, attribution.active(frozen, tokens)
        self.engine = attribution.engine(frozen, self.active, tokens)
        number = {feature: i for i, feature in enumerate(map(tuple, self.active.indices.tolist()))}
        features = graph.active_features[graph.selected_features].tolist()
        self.number = [number.get(tuple(feature), -1) for feature in features]
        shared = torch.arange(graph.layout.logit_offset - graph.layout.error_offset) + len(self.active)
        node = torch.cat([torch.tensor(self.number, dtype=torch.int64), shared])
        column_of = torch.argsort(self.engine.columns.nodes())
        self.known = node >= 0
        self.column = torch.where(self.known, column_of[node.clamp_min(0)], 0)
        theirs = set(map(tuple, graph.active_features.tolist()))
        self.selection = len(theirs ^ set(number)) / max(1, len(theirs | set(number)))

    def rows(self, targets: list[int]) -> Iterator[dict[int, Tensor]]:
        """Rows `(sources)` of feature nodes in float64, block by block; NaN at features that aren't active in float32."""
        for start in range(0, len(targets), 32):
            part = {self.number[target]: target for target in targets[start : start + 32]}
            chosen = torch.tensor(sorted(number for number in part if number >= 0), dtype=torch.int64)
            size = BlockSize(largest_work(self.model.device))
            yield {
                part[number]: self._in_order(row)
                for block in feature_rows(self.engine, self.model.transcoders, self.active, chosen, size)
                for number, row in zip(block.nodes.tolist(), block.rows, strict=True)
            }

    def _in_order(self, row: Tensor) -> Tensor:
        reached = self.column < len(row)
        out = torch.where(reached, row.double()[torch.where(reached, self.column, 0)], 0.0)
        return out.masked_fill(~self.known, torch.nan)


@torch.no_grad()
def measure_precision(
    graph: Graph, model: ReplacementModel, sampling: RowSample, phase: Phase | None = None
) -> Precision:
    """Recompute a sample of rows with a float32 model and compare."""
    targets = sampling.targets(graph)
    found: dict[int, Tensor] = {}
    selection = None
    with phase or Phase() as phase:
        exact = ExactRows(graph, model)
        selection = exact.selection
        for start, block in zip(range(0, len(targets), 32), exact.rows(targets), strict=False):
            found |= block
            phase.step(len(targets[start : start + 32]))
            if phase.over:
                break
    tried = set(targets[: phase.done])
    relative, gone = _strongest(graph, sampling.strongest, found, tried)
    rows = [_row_deviation(graph, target, row) for target, row in found.items()]
    features, single, errors = zip(*rows, strict=True) if rows else ((), (), ())
    return Precision(
        dtype=rounded_to(graph) or "float32",
        n_edges=len(relative),
        n_gone=gone,
        median_relative_error=_median(relative),
        max_relative_error=max(relative, default=None),
        n_rows=len(found),
        from_features=_median([one for one in features if one is not None]),
        single_edge=max((one for one in single if one is not None), default=None),
        from_errors=_median([one for one in errors if one is not None]),
        selection=selection,
    )


def _strongest(
    graph: Graph, count: int, found: dict[int, Tensor], tried: set[int]
) -> tuple[list[float], int]:
    """Relative errors of the strongest edges whose rows were computed, and how many have no counterpart."""
    relative, gone = [], 0
    for row, source, weight in zip(*(part.tolist() for part in strongest_edges(graph, count)), strict=True):
        if row in tried:
            exact = float(found[row][source]) if row in found else torch.nan
            if exact != exact:
                gone += 1
            else:
                relative.append(abs(weight - exact) / max(abs(exact), 1e-12))
    return relative, gone


def _row_deviation(
    graph: Graph, target: int, exact: Tensor
) -> tuple[float | None, float | None, float | None]:
    """L2 distance of the edges from features, largest single difference, L2 distance of the edges from errors; all relative."""
    edges = graph.edges
    start, end = int(edges.indptr[target]), int(edges.indptr[target + 1])
    sources = edges.indices[start:end].cpu().long()
    row = torch.zeros_like(exact)
    row[sources] = edges.values[start:end].cpu().double()
    compared = ~exact.isnan()
    if graph.pruning is not None:
        compared &= row != 0
    difference = torch.where(compared, row - exact, 0.0)
    exact = torch.where(compared, exact, 0.0)
    layout = graph.layout
    features, errors = slice(0, layout.error_offset), slice(layout.error_offset, layout.token_offset)
    return (
        _ratio(difference[features].norm(), exact[features].norm()),
        _ratio(difference[features].abs().amax(), exact[features].abs().amax()),
        _ratio(difference[errors].norm(), exact[errors].norm()),
    )


def _ratio(difference: Tensor, whole: Tensor) -> float | None:
    return float(difference / whole) if float(whole) > 0 else None


def _median(values: list[float]) -> float | None:
    return float(torch.tensor(values, dtype=torch.float64).median()) if values else None
