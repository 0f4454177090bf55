"""The engine's column order and the graph's node order describe the same nodes."""

from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st

from circuit_tracer_cli.attribution.columns import Columns

FEATURES = st.sets(st.tuples(st.integers(0, 2), st.integers(0, 3), st.integers(0, 9)), max_size=40)


@given(FEATURES)
def test_every_node_has_one_column(found: set[tuple[int, int, int]]) -> None:
    features = torch.tensor(sorted(found), dtype=torch.int64).reshape(-1, 3)
    columns = Columns.build(features, n_layers=3, n_pos=4)
    assert columns.width == len(features) + 3 * 4 + 4
    nodes = columns.nodes()
    assert sorted(nodes.tolist()) == list(range(columns.width))
    for index, (layer, pos, _) in enumerate(features.tolist()):
        column = int(columns.feature_column[index])
        assert nodes[column] == index
        start, end = columns.source_range(pos, layer, layer)
        assert start <= column < end
        assert columns.starts[pos] <= column < columns.starts[pos + 1]
    for pos in range(4):
        assert nodes[columns.token_column(pos)] == len(features) + 12 + pos
        for layer in range(3):
            assert nodes[columns.error_column(pos, layer)] == len(features) + layer * 4 + pos
            start, end = columns.source_range(pos, layer, layer)
            assert columns.error_column(pos, layer) == end - 1
            assert end - start == 1 + sum([layer, pos] == feature[:2] for feature in features.tolist())


@given(FEATURES)
def test_every_column_has_its_place(found: set[tuple[int, int, int]]) -> None:
    features = torch.tensor(sorted(found), dtype=torch.int64).reshape(-1, 3)
    columns = Columns.build(features, n_layers=3, n_pos=4)
    layers, positions = columns.places(columns.feature_column)
    assert torch.equal(torch.stack([layers, positions], 1), features[:, :2])
    for pos in range(4):
        errors = torch.tensor([columns.error_column(pos, layer) for layer in range(3)])
        assert columns.places(errors)[0].tolist() == [0, 1, 2]
        assert columns.places(errors)[1].tolist() == [pos] * 3
        token = torch.tensor([columns.token_column(pos)])
        assert [int(found) for found in columns.places(token)] == [-1, pos]
