"""`offload="auto"` in Python decides by the plan of the command line, for what is loaded already."""

from __future__ import annotations

import pytest
import torch
from tests.builders import PROMPT, replacement

from circuit_tracer_cli.attribution.attribute import attribute
from circuit_tracer_cli.attribution.places import choose_places, sizes_of
from circuit_tracer_cli.planning.memory import PROGRAM
from circuit_tracer_cli.replacement import ReplacementModel


@pytest.fixture(scope="module")
def model() -> ReplacementModel:
    return replacement("llama", "clt")


def free_memory(monkeypatch: pytest.MonkeyPatch, n_bytes: int) -> None:
    monkeypatch.setattr("circuit_tracer_cli.attribution.places.available_memory", lambda device: n_bytes)


def test_sizes_are_those_of_what_is_loaded(model: ReplacementModel) -> None:
    sizes = sizes_of(model, 7, n_targets=10, max_feature_nodes=0)
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
