"""Engine rows against an oracle that replays the frozen tensors, the model's own autograd, and pre-activations."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from tests.builders import BACKEND_NAMES, FAMILIES, PROMPT, diagonal, on_both_backends, readable, replacement
from tests.oracle.replay import Replay, Written, double, oracle_row, written
from torch import Tensor

from circuit_tracer_cli.attribution.attribute import Attribution, AttributionSettings, attribute
from circuit_tracer_cli.attribution.linear import LinearEngine, Targets
from circuit_tracer_cli.attribution.sources import build_sources
from circuit_tracer_cli.backends.base import Hooks
from circuit_tracer_cli.replacement import ReplacementModel
from circuit_tracer_cli.transcoders.components import ActiveFeatures, active_features
from circuit_tracer_cli.types import SilentProgress


def cases() -> list[tuple[str, str, str, bool, str, str]]:
    """Every family with both kinds, and in turn every activation, skip, read and write point."""
    found = []
    for number, family in enumerate(FAMILIES):
        reads = readable(family)
        for turn, kind in enumerate(("plt", "clt")):
            activation = ("relu", "jumprelu", "topk")[(number + turn) % 3]
            for skip in (False, True):
                read = reads[(number + turn + skip) % len(reads)]
                write = ("hook_mlp_out", "mlp.hook_out")[(turn + skip) % 2]
                found.append((family, kind, activation, skip, read, write))
    return found


EXPERTS = ("gpt_oss", "mixtral", "qwen3_moe")
"""Families whose neurons are refused."""


def neuron_cases() -> list[Any]:
    """Every family whose neurons can be traced, on one backend each; a few of them in the fast suite."""
    fast = ("gpt2", "llama", "gemma2", "phi3", "olmo2", "gpt_neox")
    found = []
    for number, family in enumerate(name for name in FAMILIES if name not in EXPERTS):
        gated = family not in ("gpt2", "gptj", "phi", "gpt_neox", "gpt_neox_sequential")
        rule = "gate frozen" if gated and number % 3 == 2 else "half rule"
        case = (BACKEND_NAMES[number % 2], family, "neurons", rule, False, "mlp.hook_in", "mlp.hook_out")
        found.append(pytest.param(*case, marks=[] if family in fast else [pytest.mark.long]))
    return found


def traced(model: ReplacementModel) -> tuple[Replay, ActiveFeatures, Tensor, LinearEngine]:
    """A model frozen on the prompt, in float64: replay, active features, error vectors, engine."""
    tokens = model.tokenize(list(PROMPT))
    seen: dict[str, Tensor] = {}
    model.model.run(
        tokens.ids, Hooks({"blocks.0.hook_in": [lambda value: seen.__setitem__("start", value[0])]})
    )
    single = model.frozen_pass(tokens.ids)
    active = active_features(
        model.transcoders, [layer.feature_input for layer in single.layers], tokens.zero_positions
    )
    frozen = double(single)
    sources = build_sources(frozen, model.transcoders, active, tokens.zero_positions, torch.float64)
    skips = [model.transcoders.skip_matrix(layer) for layer in range(model.transcoders.n_layers)]
    errors = torch.stack(sources.errors)
    engine = LinearEngine(model.model.weights, frozen, model.points, sources, skips)
    return Replay(model, frozen, seen["start"].double() - frozen.embed), active, errors, engine


def some_targets(model: ReplacementModel, active: ActiveFeatures, n_pos: int) -> Targets:
    """Active features of every layer, a dozen at most, and three logits, from high layers to low."""
    n_layers = model.transcoders.n_layers
    logits = model.W_U.T[:3].double()
    indices = active.indices.flip(0)[:: max(5, -(-len(active) // 12))]
    rows = [
        model.transcoders.encoder_rows(layer, torch.tensor([f]), active.inputs[layer][[pos]])[0].double()
        for layer, pos, f in indices.tolist()
    ]
    return Targets(
        torch.cat([torch.full((3,), n_layers), indices[:, 0]]),
        torch.cat([torch.full((3,), n_pos - 1), indices[:, 1]]),
        torch.cat([logits, torch.stack(rows)]),
    )


def relative_error(got: Tensor, want: Tensor) -> float:
    """Largest difference over the largest entry."""
    return float((got - want).abs().max() / want.abs().max())


@pytest.mark.parametrize(
    ("backend_name", "family", "kind", "activation", "skip", "read", "write"),
    [*on_both_backends(cases()), *neuron_cases()],
)
def test_rows_equal_the_float64_oracle_and_add_up(
    backend_name: str, family: str, kind: str, activation: str, skip: bool, read: str, write: str
) -> None:
    model = replacement(family, kind, activation, skip, read=read, write=write, backend_name=backend_name)
    replay, active, errors, engine = traced(model)
    n_pos = len(PROMPT)
    targets = some_targets(model, active, n_pos)
    nodes = engine.columns.nodes()
    rows = torch.zeros(len(targets), engine.columns.width, dtype=torch.float64)
    rows[:, nodes] = engine.rows(targets)
    added = written(model, active)
    want = torch.stack(
        [
            oracle_row(replay, layer, pos, vector, added, len(active), errors)
            for layer, pos, vector in zip(
                targets.layers.tolist(), targets.positions.tolist(), targets.vectors, strict=True
            )
        ]
    )
    assert relative_error(rows, want) < 1e-10
    check_sums(model, replay, added, errors, targets, rows)


@pytest.mark.parametrize(
    ("backend_name", "family", "kind", "activation", "skip", "read", "write"),
    [*on_both_backends(cases()), *neuron_cases()],
)
def test_pushing_sources_forward_is_the_transpose_of_pulling_targets_back(
    backend_name: str, family: str, kind: str, activation: str, skip: bool, read: str, write: str
) -> None:
    model = replacement(family, kind, activation, skip, read=read, write=write, backend_name=backend_name)
    _, active, _, engine = traced(model)
    targets = some_targets(model, active, len(PROMPT))
    rows = engine.rows(targets)
    all_columns = torch.randperm(engine.columns.width, generator=torch.Generator().manual_seed(0))
    pushed = engine.push(all_columns, targets)
    assert float((pushed - rows[:, all_columns]).abs().max()) < 1e-12
    some = all_columns[:5]
    assert (
        float(
            (
                engine.push(some, targets.select(torch.arange(len(targets) - 1, 2, -3)))
                - pushed[torch.arange(len(targets) - 1, 2, -3), :5]
            )
            .abs()
            .max()
        )
        < 1e-12
    )


def check_sums(
    model: ReplacementModel, replay: Replay, added: Written, errors: Tensor, targets: Targets, rows: Tensor
) -> None:
    """Sources plus everything that is constant give what the model itself has at the target (spec 2.3)."""
    n_layers = model.transcoders.n_layers
    outputs = torch.stack([fixed.feature_output for fixed in replay.frozen.layers]) - errors
    outputs.index_put_((added.layers, added.positions), -added.vectors, accumulate=True)
    reads, final = replay.run(torch.zeros_like(replay.frozen.embed), list(outputs))
    logits_in = _final_norm_output(model, replay)
    for row, layer, pos, vector in zip(
        rows, targets.layers.tolist(), targets.positions.tolist(), targets.vectors, strict=True
    ):
        constant = (final if layer == n_layers else reads[layer])[pos] @ vector
        actual = (logits_in if layer == n_layers else replay.frozen.layers[layer].feature_input)[pos] @ vector
        size = max(1.0, float(actual.abs()))
        assert abs(float(row.sum() + constant - actual)) / size < 1e-4


def _final_norm_output(model: ReplacementModel, replay: Replay) -> Tensor:
    seen: dict[str, Tensor] = {}
    hooks = Hooks({"ln_final.hook_out": [lambda value: seen.__setitem__("out", value[0])]})
    model.model.run(replay.frozen.tokens, hooks)
    return seen["out"].double()


@pytest.mark.parametrize(
    ("backend_name", "family", "kind", "activation", "skip", "read", "write"),
    [*on_both_backends(cases()), *neuron_cases()],
)
def test_both_engines_agree(
    backend_name: str, family: str, kind: str, activation: str, skip: bool, read: str, write: str
) -> None:
    """The closed form against autograd through the model itself, float32."""
    model = replacement(family, kind, activation, skip, read=read, write=write, backend_name=backend_name)
    settings = AttributionSettings(max_n_logits=3)
    graphs = [
        Attribution(model, settings, engine, SilentProgress()).run(list(PROMPT), None)
        for engine in ("closed-form", "vector-jacobian")
    ]
    assert [graph.metadata["engine"] for graph in graphs] == ["closed-form", "vector-jacobian"]
    assert relative_error(graphs[0].adjacency_matrix, graphs[1].adjacency_matrix) < 1e-5


@pytest.mark.parametrize(
    ("family", "kind", "activation", "skip", "read", "write"),
    diagonal([case for case in cases() if not case[3]]),
)
def test_both_backends_agree(
    family: str, kind: str, activation: str, skip: bool, read: str, write: str
) -> None:
    graphs = [
        attribute(
            list(PROMPT),
            replacement(family, kind, activation, skip, read=read, write=write, backend_name=name),
            max_n_logits=3,
        )
        for name in BACKEND_NAMES
    ]
    assert [graph.metadata["backend"] for graph in graphs] == list(BACKEND_NAMES)
    for other in graphs[1:]:
        assert torch.equal(graphs[0].active_features, other.active_features)
        assert relative_error(graphs[0].adjacency_matrix, other.adjacency_matrix) < 1e-5
