"""What usually drives features: on one prompt, the part of the graph's edges that passes no attention head."""

from __future__ import annotations

import pytest

from circuit_tracer_cli.attention.loadings import loadings
from circuit_tracer_cli.errors import UnsuitableValue
from circuit_tracer_cli.features.drivers import DriverTally
from tests.attention.prompts import cases, frozen_prompt
from tests.builders import on_both_backends, replacement


@pytest.mark.parametrize(
    ("backend_name", "family", "kind", "skip", "read", "write"), on_both_backends(cases())
)
def test_on_one_prompt_it_is_the_part_of_an_edge_without_heads(
    backend_name: str, family: str, kind: str, skip: bool, read: str, write: str
) -> None:
    prompt = frozen_prompt(family, kind, False, read, write, backend_name, precise=False)
    graph = prompt.graph
    features = graph.active_features[graph.selected_features].tolist()
    node = len(features) - 1
    layer, _, number = features[node]
    if (
        kind == "clt"
        and prompt.model.points.write == "mlp"
        and prompt.frozen.layers[0].ln2_post_scale is not None
    ):
        with pytest.raises(UnsuitableValue, match="behind norms"):
            DriverTally(prompt.model, {(layer, number)})
        return
    tally = DriverTally(prompt.model, {(layer, number)})
    tally.add(prompt.tokens)
    ((_, found),) = tally.drivers(top=1000)
    where = {(at[0], at[1], at[2]): place for place, at in enumerate(features)}
    targets = [where[layer, p, number] for p in range(graph.n_pos) if (layer, p, number) in where]
    weight = [float(graph.activation_values[graph.selected_features[target]]) for target in targets]
    expected: dict[tuple[int, int], float] = {}
    for target, active in zip(targets, weight, strict=True):
        p = features[target][1]
        pairs = [(source, target) for source, at in enumerate(features) if at[1] == p and at[0] < layer]
        rows, _ = graph.edges.row(target)
        pairs = [pair for pair in pairs if pair[0] in set(rows.tolist())]
        for pair, one in zip(pairs, loadings(prompt, pairs, "hops").edges, strict=True):
            key = features[pair[0]][0], features[pair[0]][2]
            expected[key] = expected.get(key, 0.0) + active * one.hops[0] / sum(weight)
    ours = {(one.layer, one.feature): one.weight for one in found}
    size = max(map(abs, expected.values()))
    assert size > 0
    for key in {*ours, *expected}:
        assert abs(ours.get(key, 0.0) - expected.get(key, 0.0)) < 2e-5 * size


def test_what_one_product_does_not_give_is_refused() -> None:
    with pytest.raises(UnsuitableValue, match="skip connections"):
        DriverTally(replacement("llama", "plt", "relu", True), {(1, 0)})
    with pytest.raises(UnsuitableValue, match="neurons"):
        DriverTally(replacement("llama", "neurons", "half rule"), {(1, 0)})
