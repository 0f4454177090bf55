"""The two layouts of the vectors that write to a layer hold the same numbers and contract to the same rows."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from circuit_tracer_cli.attribution.columns import Columns
from circuit_tracer_cli.attribution.sources import PADDING, LayerDecoders

N_LAYERS, N_POS, D_MODEL = 3, 6, 5
FEATURES = st.sets(st.tuples(st.integers(0, 2), st.integers(0, 5), st.integers(0, 30)), max_size=80)


def filled(
    columns: Columns, sources: tuple[int, int], by_column: torch.Tensor, bucketed: bool
) -> LayerDecoders:
    """Vectors whose row for a column is that of `by_column`, errors of the last source layer included."""
    decoders = LayerDecoders.empty(columns, sources, torch.empty(0, D_MODEL, dtype=torch.float64), bucketed)
    features = [
        column
        for pos in range(N_POS)
        for column in range(*columns.source_range(pos, *sources))
        if column not in {columns.error_column(pos, layer) for layer in range(N_LAYERS)}
    ]
    shift = decoders.shift()
    starts = torch.tensor(columns.starts)
    for column in features:
        pos = int(torch.searchsorted(starts, column, right=True)) - 1
        decoders.rows[column - shift[pos]] = by_column[column]
    errors = torch.tensor([columns.error_column(pos, sources[1]) for pos in range(N_POS)])
    decoders.rows[decoders.error_rows(sources[1])] = by_column[errors]
    return decoders


@given(FEATURES, st.sampled_from([(0, 2), (1, 1), (0, 0)]), st.integers(1, N_POS))
def test_both_layouts_contract_alike(
    found: set[tuple[int, int, int]], sources: tuple[int, int], n_pos: int
) -> None:
    features = torch.tensor(sorted(found), dtype=torch.int64).reshape(-1, 3)
    columns = Columns.build(features, N_LAYERS, N_POS)
    generator = torch.Generator().manual_seed(len(found))
    by_column = torch.randn(columns.width, D_MODEL, dtype=torch.float64, generator=generator)
    G = torch.randn(4, n_pos, D_MODEL, dtype=torch.float64, generator=generator)
    want = torch.zeros(columns.width, 4, dtype=torch.float64)
    for pos in range(n_pos):
        start, end = columns.source_range(pos, *sources)
        want[start:end] = by_column[start:end] @ G[:, pos].T
        for layer in range(sources[0], sources[1]):
            want[columns.error_column(pos, layer)] = 0
    for bucketed in (False, True):
        decoders = filled(columns, sources, by_column, bucketed)
        out = torch.zeros_like(want)
        decoders.contract(G, out[: columns.starts[n_pos]])
        torch.testing.assert_close(out, want)


@given(FEATURES)
def test_padding_is_bounded(found: set[tuple[int, int, int]]) -> None:
    features = torch.tensor(sorted(found), dtype=torch.int64).reshape(-1, 3)
    columns = Columns.build(features, N_LAYERS, N_POS)
    decoders = LayerDecoders.empty(columns, (0, 2), torch.empty(0, D_MODEL), bucketed=True)
    assert sorted(pos for bucket in decoders.buckets for pos in bucket.positions) == list(range(N_POS))
    for bucket in decoders.buckets:
        fewest = min(decoders.counts[pos] for pos in bucket.positions)
        assert bucket.width <= max(fewest * PADDING, fewest + 1)
    positions = decoders.position_of_row()
    assert torch.bincount(positions, minlength=N_POS)[1:].tolist() == list(decoders.counts[1:])


@pytest.mark.parametrize("kind", ["plt", "clt"])
def test_an_accelerators_layout_gives_the_same_graph(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The whole trace with buckets, as on a GPU, against positions one after the other."""
    from tests.builders import PROMPT, replacement

    from circuit_tracer_cli.attribution import sources as module
    from circuit_tracer_cli.attribution.attribute import attribute

    model = replacement("gemma2", kind, "relu", True)
    usual = attribute(list(PROMPT), model)
    plain = module.LayerDecoders.empty.__func__  # type: ignore[attr-defined]
    monkeypatch.setattr(
        module.LayerDecoders, "empty", classmethod(lambda cls, *given: plain(cls, *given, bucketed=True))
    )
    for engine in ("closed-form", "vector-jacobian"):
        graph = attribute(list(PROMPT), model, engine=engine)
        scale = float(usual.adjacency_matrix.abs().max())
        torch.testing.assert_close(
            graph.adjacency_matrix, usual.adjacency_matrix, atol=1e-5 * scale, rtol=1e-4
        )
