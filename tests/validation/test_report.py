"""Validation of graphs of tiny random models: what is right is found right, and what is wrong is found wrong."""

from __future__ import annotations

import dataclasses
import functools
from typing import ClassVar

import pytest
import torch

from circuit_tracer_cli.attribution.attribute import attribute
from circuit_tracer_cli.errors import InvalidValue, ModelMismatch
from circuit_tracer_cli.graph.edges import Edges
from circuit_tracer_cli.graph.graph import Graph
from circuit_tracer_cli.graph.influence import compute_graph_scores
from circuit_tracer_cli.graph.prune import prune_graph, pruned_graph
from circuit_tracer_cli.interventions.passes import Pins, Push
from circuit_tracer_cli.types import SilentProgress
from circuit_tracer_cli.validation.checks import checks
from circuit_tracer_cli.validation.direct import measure_direct_effects
from circuit_tracer_cli.validation.faithfulness import LocalReplacementPass, WatchedPass, measure_layers
from circuit_tracer_cli.validation.pace import Pace
from circuit_tracer_cli.validation.precision import RowSample, measure_precision
from circuit_tracer_cli.validation.pruning import measure_scores
from circuit_tracer_cli.validation.report import Effort, ValidationInterrupted, validate_graph
from circuit_tracer_cli.validation.statistics import kl_divergence
from circuit_tracer_cli.validation.subject import Subject
from tests.builders import PROMPT, replacement
from tests.cases import one_of

SMALL = Effort(samples=6, perturbations=1)


@functools.cache
def traced(family: str = "llama", kind: str = "plt", dtype: torch.dtype = torch.float32) -> Graph:
    return attribute(list(PROMPT), replacement(family, kind, dtype=dtype))


def changed(graph: Graph, **parts: object) -> Graph:
    """The graph with other parts."""
    names = (
        "input_string input_tokens active_features cfg selected_features activation_values logit_targets "
        "logit_probabilities scan vocab_size metadata"
    )
    values = {name: getattr(graph, name) for name in names.split()}
    return Graph(**{"adjacency_matrix": graph.edges, **values, **parts})


@pytest.mark.parametrize(("family", "kind"), one_of(("llama", "plt"), ("gemma2", "clt")))
def test_a_graph_holds_on_its_own_model(family: str, kind: str) -> None:
    graph, model = traced(family, kind), replacement(family, kind)
    report = validate_graph(graph, model, SMALL)
    assert report.direct.agrees
    assert report.direct.max_absolute_error < 5e-5
    assert report.direct.n_columns == {"feature": 6, "error": 6, "token": 6}
    assert report.n_unknown == 0
    assert report.ablation.n_features == 6
    assert report.ablation.max_kl > 0
    assert report.edges.n_edges > 10
    assert report.edges.spearman is not None
    assert report.edges.spearman > 0.5
    assert [layer.layer for layer in report.faithfulness] == [0, 1]
    assert report.precision is None
    assert report.heads is not None
    assert report.heads.agrees
    assert report.heads.n_heads == 6
    assert report.heads.max_absolute_error < 5e-5
    assert report.attention is not None
    assert report.attention.agrees
    assert report.attention.n_scores >= 2
    assert report.attention.max_absolute_error < 5e-4
    assert report.to_dict()["direct"]["agrees"] is True


def test_a_wrong_edge_is_found() -> None:
    graph = traced()
    matrix = graph.adjacency_matrix
    node = int(matrix[:, : graph.layout.n_features].abs().sum(0).argmax())
    matrix[:, node] *= 1.05
    subject = Subject(changed(graph, adjacency_matrix=matrix), replacement("llama", "plt"))
    found = measure_direct_effects(subject, {"feature": [node]})
    assert not found.agrees
    assert found.max_relative_error == pytest.approx(0.05 / 1.05, rel=1e-2)
    assert found.worst == graph.node_id(node)


@pytest.mark.long
def test_a_pruned_graph_is_judged_by_what_it_kept() -> None:
    graph, model = traced(), replacement("llama", "plt")
    found = validate_graph(pruned_graph(graph), model, dataclasses.replace(SMALL, samples=3))
    assert found.direct.agrees
    assert found.scores.errors_kept is None
    layout = graph.layout
    assert 0 < found.direct.n_entries < 9 * (layout.n_features + layout.n_logits)


def test_custom_targets_have_no_measured_logit() -> None:
    model = replacement("llama", "plt")
    graph = attribute(list(PROMPT), model, attribution_targets=[("up", 1.0, model.W_U[:, 3])])
    found = measure_direct_effects(Subject(graph, model), {"token": [graph.layout.token_offset + 1]})
    assert found.agrees
    assert found.n_entries == len(graph.selected_features)


def test_a_graph_of_another_model_is_refused() -> None:
    other = replacement("llama", "plt", seed=5)
    with pytest.raises(ModelMismatch, match="aren't active"):
        validate_graph(traced(), other, SMALL)
    cfg = dataclasses.replace(traced().cfg, d_model=99)
    with pytest.raises(ModelMismatch, match="d_model 99"):
        validate_graph(changed(traced(), cfg=cfg), replacement("llama", "plt"), SMALL)


@pytest.mark.parametrize("name", ["samples", "perturbations", "strongest"])
def test_no_effort_is_refused(name: str) -> None:
    with pytest.raises(InvalidValue, match=name):
        Effort(**{name: 0})


@pytest.mark.parametrize("kind", ["plt", "clt"])
def test_the_local_replacement_model_adds_up_the_graphs_paths(kind: str) -> None:
    """A small push changes every feature by the sum over all paths, as long as no feature turns on or off."""
    graph, model = traced("llama", kind), replacement("llama", kind)
    subject, small = Subject(graph, model), 1e-2
    node, n = graph.layout.error_offset + 3, graph.layout.n_features
    matrix = graph.adjacency_matrix.double()
    push = subject.push(node)
    per_unit = matrix[:n, :n] / graph.activation_values.double()[None]
    paths = torch.linalg.solve(torch.eye(n, dtype=torch.float64) - per_unit, small * matrix[:n, node])
    still = replaced(subject, Push(push.layer, push.position, 0 * push.vector))
    moved = replaced(subject, Push(push.layer, push.position, small * push.vector))
    assert float((moved - still - paths).abs().max()) < 1e-3 * float(paths.abs().max())


def replaced(subject: Subject, push: Push) -> torch.Tensor:
    """Pre-activations of the graph's features in the local replacement model."""
    pins = Pins(subject.frozen, patterns=True, layers=frozenset(range(subject.n_layers)), scales=True)
    watched = LocalReplacementPass(subject, pins, (push,))
    with torch.no_grad():
        subject.model.model.run(subject.tokens.ids, watched.hooks())
    found = []
    for layer, position, feature in subject.features.tolist():
        row = subject.model.transcoders.encoder_rows(layer, torch.tensor([feature]))[0]
        found.append(float(watched.read_points[layer][position].double() @ row.double()))
    return torch.tensor(found, dtype=torch.float64)


def test_without_a_perturbation_both_models_stand_still() -> None:
    subject = Subject(traced("gemma2", "clt"), replacement("gemma2", "clt"))
    pins = Pins(subject.frozen, patterns=True, layers=frozenset(range(3)), scales=True)
    for watched in (LocalReplacementPass(subject, pins, ()), WatchedPass(subject, None, ())):
        with torch.no_grad():
            subject.model.model.run(subject.tokens.ids, watched.hooks())
        for layer, value in watched.read_points.items():
            torch.testing.assert_close(
                value, subject.frozen.layers[layer].feature_input, atol=1e-5, rtol=1e-5
            )


def test_faithfulness_is_a_number_per_layer() -> None:
    found = measure_layers(Subject(traced(), replacement("llama", "plt")), [1], count=2, seed=0)[0]
    assert -1 <= found.cosine <= 1
    assert found.nmse > 0


def test_scores_in_both_conventions() -> None:
    graph = traced()
    found = measure_scores(graph, 0.5, 0.8)
    mask, edge_mask, _ = prune_graph(graph, 0.5, 0.8)
    matrix, layout = graph.adjacency_matrix, graph.layout
    assert (found.before.replacement, found.before.completeness) == compute_graph_scores(graph)
    pruned = compute_graph_scores(changed(graph, adjacency_matrix=matrix * edge_mask))
    assert (found.errors_pruned.replacement, found.errors_pruned.completeness) == pytest.approx(pruned)
    errors = torch.zeros_like(edge_mask)
    errors[mask, layout.error_offset : layout.token_offset] = True
    kept = compute_graph_scores(changed(graph, adjacency_matrix=matrix * (edge_mask | errors)))
    assert found.errors_kept is not None
    assert (found.errors_kept.replacement, found.errors_kept.completeness) == pytest.approx(kept)
    assert found.errors_kept.replacement < found.errors_pruned.replacement
    assert (found.n_nodes, found.n_edges) == (int(mask.sum()), int(edge_mask.sum()))


def test_precision_compares_the_same_edges() -> None:
    graph, model = traced(), replacement("llama", "plt")
    same = measure_precision(graph, model, RowSample(50))
    assert (same.n_edges, same.n_gone) == (50, 0)
    assert same.max_relative_error is not None
    assert same.max_relative_error < 1e-5
    edges = graph.edges
    off = measure_precision(
        changed(graph, adjacency_matrix=Edges(edges.indptr, edges.indices, 1.1 * edges.values)),
        model,
        RowSample(50),
    )
    assert off.median_relative_error == pytest.approx(0.1, rel=1e-3)


@pytest.mark.long
def test_a_sixteen_bit_graph_is_compared_with_float32() -> None:
    graph = traced("llama", "plt", torch.bfloat16)
    model = replacement("llama", "plt", dtype=torch.bfloat16)
    report = validate_graph(graph, model, SMALL, float32_model=lambda: replacement("llama", "plt"))
    assert report.direct.agrees is None
    assert report.precision is not None
    assert report.precision.dtype == "bfloat16"
    assert report.precision.n_edges + report.precision.n_gone == 200
    assert report.precision.median_relative_error is not None
    assert 0 < report.precision.median_relative_error < 0.2
    assert report.precision.n_rows > 20
    assert report.precision.from_features is not None
    assert report.precision.from_errors is not None
    assert 0 < report.precision.from_features < 0.2
    assert 0 < report.precision.from_errors < 0.2


def test_whole_rows_are_compared_with_float32() -> None:
    """Edges from features scaled by 1.02 and from errors by 1.3 are reported as off by just that."""
    graph, model = traced(), replacement("llama", "plt")
    edges, layout = graph.edges, graph.layout
    sources = edges.indices.long()
    scale = torch.where(sources < layout.error_offset, 1.02, 1.0)
    scale[(sources >= layout.error_offset) & (sources < layout.token_offset)] = 1.3
    wrong = changed(graph, adjacency_matrix=Edges(edges.indptr, edges.indices, edges.values * scale))
    found = measure_precision(wrong, model, RowSample(10, rows=8))
    assert found.from_features == pytest.approx(0.02, rel=1e-3)
    assert found.single_edge == pytest.approx(0.02, rel=1e-3)
    assert found.from_errors == pytest.approx(0.3, rel=1e-3)
    assert found.selection == 0
    more = changed(
        graph,
        active_features=torch.cat([graph.active_features, torch.tensor([[0, 1, 9999]])]),
        activation_values=torch.cat([graph.activation_values, torch.ones(1)]),
    )
    gone = measure_precision(more, model, RowSample(10, rows=8)).selection
    assert gone == pytest.approx(1 / (len(graph.active_features) + 1))


class Clock:
    """Time that goes on by a second whenever somebody looks."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        self.now += 1.0
        return self.now


def test_a_phase_stops_when_its_share_of_the_budget_is_used_up() -> None:
    pace = Pace(SilentProgress(), 20.0, 2, Clock())
    with pace.phase("first", 100) as first:
        seen = list(first.each(range(100)))
    assert 0 < len(seen) == first.done < 12
    assert first.cut
    with pace.phase("second", 1) as second:
        assert list(second.each([7])) == [7]
    assert not second.cut
    assert second.limit == pytest.approx(20 - first.seconds)


def test_a_small_budget_measures_some_of_each_phase_and_says_so() -> None:
    class Notes(SilentProgress):
        found: ClassVar[list[str]] = []

        def note(self, message: str) -> None:
            self.found.append(message)

    report = validate_graph(
        traced(), replacement("llama", "plt"), dataclasses.replace(SMALL, budget=1e-9), progress=Notes()
    )
    assert [phase.done for phase in report.phases] == [1, 1, 1, 1, 1, 1]
    assert report.direct is not None
    assert report.direct.n_columns == {"feature": 1, "error": 0, "token": 0}
    assert len(report.faithfulness) == 1
    assert any("direct effects: 1 of 18 measured" in note for note in Notes.found)


def test_an_interruption_keeps_what_was_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = 0

    def interrupted(before: torch.Tensor, after: torch.Tensor) -> float:
        nonlocal calls
        calls += 1
        if calls == 3:
            raise KeyboardInterrupt
        return kl_divergence(before, after)

    monkeypatch.setattr("circuit_tracer_cli.validation.ablation.kl_divergence", interrupted)
    with pytest.raises(ValidationInterrupted) as stopped:
        validate_graph(traced(), replacement("llama", "plt"), SMALL)
    report = stopped.value.report
    assert report.direct is not None
    assert report.direct.agrees
    assert report.ablation is not None
    assert report.ablation.n_features == 2
    assert report.edges is None
    assert {check.name for check in checks(report)} == {
        "direct_effects",
        "influence",
        "replacement",
        "completeness",
    }
