"""Every way of sorting an edge's paths by heads adds up to the edge, and what goes through a head is what its ablation takes."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from circuit_tracer_cli.attention import loadings as module
from circuit_tracer_cli.attention.loadings import head_loadings, loadings
from circuit_tracer_cli.attention.prompt import freeze
from circuit_tracer_cli.attribution.attribute import attribute
from circuit_tracer_cli.errors import InvalidValue, ModelMismatch
from circuit_tracer_cli.graph.prune import pruned_graph
from tests.attention.prompts import cases, exact_weights, frozen_prompt, positions, some_edges, without
from tests.builders import PROMPT, on_both_backends, replacement

CASES = ("backend_name", "family", "kind", "skip", "read", "write")


@pytest.mark.parametrize(CASES, on_both_backends(cases()))
def test_heads_add_up_to_the_edge(
    backend_name: str, family: str, kind: str, skip: bool, read: str, write: str
) -> None:
    prompt = frozen_prompt(family, kind, skip, read, write, backend_name)
    edges = some_edges(prompt)
    weights = exact_weights(prompt, edges)
    size = float(weights.abs().max())
    source_at, target_at = positions(prompt, edges)
    apart = source_at != target_at
    assert bool(apart.any())
    assert not bool(apart.all())
    assert {prompt.graph.node_kind(source) for source, _ in edges} == {"feature", "error", "token"}
    for by in ("arrive", "leave"):
        found = loadings(prompt, edges, by, 0)
        total = torch.tensor([edge.total for edge in found], dtype=torch.float64)
        assert float((total - weights)[apart].abs().max()) < 1e-9 * size
        for edge, far in zip(found, apart.tolist(), strict=True):
            assert edge.same_position is not far
            assert sum(share.value for share in edge.heads) + edge.rest == pytest.approx(
                edge.weight, abs=1e-9
            )
            assert abs(edge.total - (edge.weight if far else 0.0)) < 2e-6 * max(1.0, size)
            assert far or not edge.heads
    hops = loadings(prompt, edges, "hops")
    assert (
        max(abs(sum(edge.hops) - float(weight)) for edge, weight in zip(hops, weights, strict=True))
        < 1e-9 * size
    )
    through = loadings(prompt, edges, "through", 0)
    for edge, parts in zip(through, hops, strict=True):
        times = sum(n * value for n, value in enumerate(parts.hops))
        assert sum(share.value for share in edge.heads) == pytest.approx(times, abs=1e-9 * size)


@pytest.mark.parametrize(CASES, on_both_backends(cases()))
def test_what_goes_through_a_head_is_what_an_edge_loses_without_it(
    backend_name: str, family: str, kind: str, skip: bool, read: str, write: str
) -> None:
    prompt = frozen_prompt(family, kind, skip, read, write, backend_name)
    edges = some_edges(prompt, 14)
    before = exact_weights(prompt, edges)
    size = float(before.abs().max())
    found = loadings(prompt, edges, "through", 0)
    for layer, head in ((0, 0), (1, prompt.n_heads - 1), (2, 1)):

        def off(pattern: torch.Tensor, head: int = head) -> None:
            pattern[head] = 0

        after = exact_weights(replace(prompt, engine=without(prompt, layer, off)), edges)
        told = [sum(s.value for s in edge.heads if (s.layer, s.head) == (layer, head)) for edge in found]
        assert float((before - after - torch.tensor(told, dtype=torch.float64)).abs().max()) < 1e-9 * size


@pytest.mark.parametrize(CASES, on_both_backends(cases()))
def test_chains_add_up_and_are_what_only_their_heads_leave(
    backend_name: str, family: str, kind: str, skip: bool, read: str, write: str
) -> None:
    """A chain is what is left of an edge with every other head off, less what fewer of its heads do."""
    prompt = frozen_prompt(family, kind, skip, read, write, backend_name)
    edges = some_edges(prompt, 6)[:6:2]
    found = loadings(prompt, edges, "chains", 1000)
    weights = exact_weights(prompt, edges)
    size = float(weights.abs().max())
    for edge, weight in zip(found, weights, strict=True):
        assert edge.total == pytest.approx(float(weight), abs=1e-9 * size)
        assert sum(chain.value for chain in edge.chains) == pytest.approx(float(weight), abs=1e-9 * size)
        assert len({chain.heads for chain in edge.chains}) == len(edge.chains)
    hops = loadings(prompt, edges, "hops")
    for edge, parts in zip(found, hops, strict=True):
        for n, value in enumerate(parts.hops):
            own = sum(chain.value for chain in edge.chains if len(chain.heads) == n)
            assert own == pytest.approx(value, abs=1e-9 * size)


def test_fewer_chains_leave_a_rest() -> None:
    prompt = frozen_prompt("llama", "clt")
    edges = some_edges(prompt, 6)[:3]
    for edge in loadings(prompt, edges, "chains", 3):
        assert len(edge.chains) == 3
        assert sum(chain.value for chain in edge.chains) + edge.rest == pytest.approx(edge.weight)


def test_the_strongest_are_listed_and_the_rest_is_told() -> None:
    prompt = frozen_prompt("llama", "clt")
    edges = some_edges(prompt)
    for few, every in zip(
        loadings(prompt, edges, "arrive", 3), loadings(prompt, edges, "arrive", 0), strict=True
    ):
        assert few.heads == every.heads[:3]
        assert few.rest == pytest.approx(every.rest + sum(share.value for share in every.heads[3:]))


def test_blocks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    prompt = frozen_prompt("gemma2", "clt")
    edges = some_edges(prompt)
    for by in ("arrive", "leave", "through", "hops"):
        whole = loadings(prompt, edges, by, 5)
        monkeypatch.setattr(module, "HELD_NUMBERS", 7 * 24 * 2)
        for one, other in zip(whole, loadings(prompt, edges, by, 5), strict=True):
            assert [s.name for s in one.heads] == [s.name for s in other.heads]
            assert [s.value for s in one.heads] == pytest.approx([s.value for s in other.heads])
            assert one.hops == pytest.approx(other.hops)
        monkeypatch.undo()


@pytest.mark.parametrize("family", ["llama", "gpt_oss", "gpt_neox"])
def test_a_float32_model_agrees_to_its_rounding(family: str) -> None:
    prompt = frozen_prompt(family, "clt", precise=False)
    edges = some_edges(prompt)
    size = max(abs(edge.weight) for edge in loadings(prompt, edges))
    for edge in loadings(prompt, edges):
        assert edge.same_position or abs(edge.total - edge.weight) < 1e-4 * size


def test_what_stays_at_its_position_is_moved_by_no_head() -> None:
    prompt = frozen_prompt("llama", "plt", prompt=(0, 3))
    layout = prompt.graph.layout
    edges = [(layout.token_offset + prompt.n_pos - 1, layout.logit_offset)]
    edge = next(iter(loadings(prompt, edges, "arrive")))
    assert edge.same_position
    assert not edge.heads
    assert edge.rest == edge.weight
    through = next(iter(loadings(prompt, edges, "through", 0)))
    assert through.heads
    assert sum(next(iter(loadings(prompt, edges, "hops"))).hops) == pytest.approx(edge.weight, rel=1e-5)


def test_heads_of_a_parallel_block_do_not_feed_the_features_of_that_block() -> None:
    prompt = frozen_prompt("gpt_neox", "plt")
    graph, layout = prompt.graph, prompt.graph.layout
    layers = graph.active_features[graph.selected_features][:, 0]
    target = int((layers == 1).nonzero()[-1])
    sources = range(layout.token_offset, layout.logit_offset)
    found = loadings(prompt, [(source, target) for source in sources], "through", 0)
    assert {share.layer for edge in found for share in edge.heads} == {0}


def test_public_names_take_ids_and_numbers() -> None:
    prompt = frozen_prompt("llama", "clt", precise=False)
    edges = some_edges(prompt)
    source_at, target_at = positions(prompt, edges)
    edge = edges[int((source_at != target_at).nonzero()[0])]
    named = prompt.graph.node_id(edge[0]), prompt.graph.node_id(edge[1])
    by_number = head_loadings(prompt.graph, prompt.model, [edge])
    assert head_loadings(prompt.graph, prompt.model, [named]) == by_number
    assert by_number.edges[0].source == named[0]
    shape = by_number.to_dict()["edges"][0]
    assert list(shape)[:6] == ["source", "target", "weight", "by", "heads", "rest"]
    assert set(shape["heads"][0]) == {"layer", "head", "position", "value"}


@pytest.mark.parametrize("edge", [("9_9_9", "9_9_9"), ("1/2", "3/4"), ("", "")])
def test_nodes_that_are_not_there_are_named(edge: tuple[str, str]) -> None:
    prompt = frozen_prompt("llama", "clt", precise=False)
    with pytest.raises(InvalidValue, match="no node"):
        head_loadings(prompt.graph, prompt.model, [edge])


def test_edges_that_cannot_be_are_named() -> None:
    prompt = frozen_prompt("llama", "clt", precise=False)
    layout = prompt.graph.layout
    with pytest.raises(InvalidValue, match="where no edge begins"):
        head_loadings(prompt.graph, prompt.model, [(layout.logit_offset, 0)])
    with pytest.raises(InvalidValue, match="where no edge ends"):
        head_loadings(prompt.graph, prompt.model, [(0, layout.token_offset)])
    with pytest.raises(InvalidValue, match="unknown value by="):
        head_loadings(prompt.graph, prompt.model, [(0, layout.logit_offset)], by="arrives")  # type: ignore[arg-type]
    for number in (-1, layout.n_nodes, True):
        with pytest.raises(InvalidValue, match=f"no node {number}"):
            head_loadings(prompt.graph, prompt.model, [(number, layout.logit_offset)])


def test_an_edge_that_pruning_removed_is_named() -> None:
    prompt = frozen_prompt("llama", "clt", precise=False)
    smaller = pruned_graph(prompt.graph, 0.5, 0.5)
    ids, shown, kept = prompt.graph.node_ids(), set(smaller.node_ids()), set()
    for block in smaller.edges.blocks():
        kept |= {(smaller.node_id(source), smaller.node_id(target)) for source, target, _ in block.triples()}
    lost = [
        (ids[source], ids[target])
        for block in prompt.graph.edges.blocks()
        for source, target, _ in block.triples()
        if (ids[source], ids[target]) not in kept and {ids[source], ids[target]} <= shown
    ]
    with pytest.raises(InvalidValue, match="no edge from"):
        head_loadings(smaller, prompt.model, lost[:1])


def test_a_graph_of_another_model_is_refused() -> None:
    prompt = frozen_prompt("llama", "clt", precise=False)
    other = frozen_prompt("mistral", "clt", precise=False)
    with pytest.raises(ModelMismatch, match="active"):
        head_loadings(prompt.graph, other.model, [(0, prompt.graph.layout.logit_offset)])


@pytest.mark.parametrize(("factor", "fits"), [(1 + 1e-6, True), (1.01, False)])
def test_a_graph_with_other_activations_was_made_by_another_model(factor: float, fits: bool) -> None:
    """The same features may be active with other weights; what goes through a head would be another number."""
    model = replacement("llama", "plt")
    graph = attribute(list(PROMPT), model)
    other = graph.replace(activation_values=graph.activation_values * factor)
    if fits:
        freeze(other, model)
        return
    with pytest.raises(ModelMismatch, match=r"has activation .* other weights or another dtype"):
        freeze(other, model)
