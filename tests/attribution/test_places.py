"""`offload="auto"` in Python decides by the plan of the command line, for what is loaded already."""

from __future__ import annotations

import pytest
import torch
from tests.builders import PROMPT, replacement

from circuit_tracer_cli.attribution.attribute import attribute
from circuit_tracer_cli.attribution.places import (
    choose_places,
    sizes_of_loaded,
    target_count,
    with_what_is_held,
)
from circuit_tracer_cli.planning import Budget, DeviceBudget, TraceSizes, plan_memory
from circuit_tracer_cli.planning.facts import trace_sizes
from circuit_tracer_cli.planning.memory import PROGRAM, PROGRAM_ON_GPU
from circuit_tracer_cli.planning.sizes import usual_l0
from circuit_tracer_cli.replacement import ReplacementModel


@pytest.fixture(scope="module")
def model() -> ReplacementModel:
    return replacement("llama", "clt")


def free_memory(monkeypatch: pytest.MonkeyPatch, n_bytes: int) -> None:
    monkeypatch.setattr("circuit_tracer_cli.attribution.places.free_memory", lambda device=None: n_bytes)


def test_sizes_are_those_of_what_is_loaded(model: ReplacementModel) -> None:
    sizes = trace_sizes(sizes_of_loaded(model), dtype_bytes=4, n_pos=7, max_feature_nodes=0)
    hf_model = model.model.hf_model  # type: ignore[attr-defined]
    assert sizes.model_params == sum(p.numel() for p in hf_model.parameters())
    assert sizes.encoder_bytes == 3 * 36 * 24 * 4
    assert sizes.decoder_bytes == (3 + 2 + 1) * 36 * 24 * 4
    assert (sizes.n_layers, sizes.kind, sizes.dtype_bytes, sizes.skip_layers) == (3, "clt", 4, 0)


def test_nothing_moves_where_there_is_room_and_much_where_there_is_none(
    model: ReplacementModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    free_memory(monkeypatch, 64 * 2**30)
    roomy = choose_places(model, 7, n_targets=10, max_feature_nodes=0)
    assert (roomy.offload, roomy.lazy_encoder, roomy.lazy_decoder) == ("none", False, False)
    free_memory(monkeypatch, 0)
    tight = choose_places(model, 7, n_targets=10, max_feature_nodes=0)
    assert tight.offload == "disk"
    assert tight.work < roomy.work


def test_memory_that_is_held_already_counts_as_there(
    model: ReplacementModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What must be free is what the trace itself needs, neither the program nor the weights once more."""
    free_memory(monkeypatch, PROGRAM // 2)
    assert choose_places(model, 7, n_targets=10, max_feature_nodes=0).offload == "none"


def test_a_loaded_model_over_gpu_and_cpu_is_planned_as_before_it_was_loaded() -> None:
    """A 2.6B model, half of its layers on the CPU of a host of 15.5 GiB."""
    sizes = TraceSizes(
        n_layers=26, d_model=2304, n_heads=8, n_kv_heads=4, d_head=256, d_mlp=9216, d_vocab=256_000, kind="plt",
        d_transcoder=16384, n_pos=64, model_params=2_600_000_000, encoder_bytes=26 * 16384 * 2304 * 4,
        decoder_bytes=26 * 16384 * 2304 * 4, max_feature_nodes=7500,
    )  # fmt: skip
    gib = 2**30
    layers = tuple(range(13)), tuple(range(13, 26))

    def budget(host: int, gpu: int) -> Budget:
        return Budget(
            host, gpu + host, (DeviceBudget("cuda:0", gpu, layers[0]), DeviceBudget("cpu", host, layers[1]))
        )

    before = budget(31 * gib // 2, 80 * gib)
    plan = plan_memory(sizes, before)
    assert (plan.fits, plan.choices.offload, plan.choices.lazy_encoder) == (True, "none", False)
    half = (2_600_000_000 * 4 + sizes.encoder_bytes) // 2
    after = budget(before.host - PROGRAM - half, 80 * gib - PROGRAM_ON_GPU - half)
    again = plan_memory(
        sizes, with_what_is_held(after, sizes, sizes.encoder_bytes), lazy_encoder=False, lazy_decoder=True
    )
    assert (again.fits, again.choices) == (True, plan.choices)


def test_an_expected_number_of_active_features_is_that_of_the_command_line(model: ReplacementModel) -> None:
    sizes = trace_sizes(sizes_of_loaded(model), dtype_bytes=4, n_pos=7, max_feature_nodes=0)
    assert model.transcoders.expected_l0 is None
    assert sizes.active_per_position == usual_l0(36) < 1


def test_targets_that_are_given_are_counted() -> None:
    assert target_count(None, 10) == 10
    assert target_count(" Austin", 10) == 1
    assert target_count([" Austin", " Texas"], 10) == 2
    assert target_count(torch.arange(40), 10) == 40


@pytest.mark.parametrize(("n_bytes", "place"), [(64 * 2**30, "none"), (0, "disk")])
def test_the_graph_is_the_same_and_says_it(
    model: ReplacementModel, monkeypatch: pytest.MonkeyPatch, n_bytes: int, place: str
) -> None:
    want = attribute(list(PROMPT), model)
    free_memory(monkeypatch, n_bytes)
    graph = attribute(list(PROMPT), model, offload="auto")
    assert graph.metadata["offload"] == place
    torch.testing.assert_close(graph.adjacency_matrix, want.adjacency_matrix, atol=1e-6, rtol=1e-6)
    again = attribute(list(PROMPT), model)
    assert torch.equal(again.adjacency_matrix, want.adjacency_matrix)
