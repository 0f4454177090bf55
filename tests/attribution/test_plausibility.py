"""Sets that don't fit their model warn; sets that do, don't."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from tests.builders import PROMPT, backend, replacement, transcoders

from circuit_tracer_cli import ReplacementModel, attribute
from circuit_tracer_cli.transcoders.activations import TopK
from circuit_tracer_cli.transcoders.config import SetConfig, stated_l0
from circuit_tracer_cli.transcoders.plausibility import judge
from circuit_tracer_cli.types import SilentProgress

DALLAS = "Fact: the capital of the state containing Dallas is"
SMALL = "The opposite of small is"


class Notes(SilentProgress):
    """Remembers notes."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def note(self, message: str) -> None:
        self.lines.append(message)


def demo(reference: str) -> ReplacementModel:
    return ReplacementModel.from_pretrained("demo", reference, device="cpu", lazy_decoder=False)


def warnings_of(model: ReplacementModel, prompt: str) -> list[str]:
    notes = Notes()
    graph = attribute(prompt, model, max_feature_nodes=4, progress=notes)
    warnings = graph.metadata["plausibility"]["warnings"]
    assert [f"warning: {one}" for one in warnings] == [one for one in notes.lines if "warning" in one]
    return list(warnings)


@pytest.mark.parametrize("reference", ["demo", "demo-plt"])
@pytest.mark.parametrize("prompt", [DALLAS, SMALL])
def test_the_demo_fits(reference: str, prompt: str) -> None:
    assert warnings_of(demo(reference), prompt) == []


# On DALLAS the cross-layer set at the wrong hook errs by 0.75 in the median layer, as right sets may on foreign text: no warning.
@pytest.mark.parametrize(
    ("reference", "prompt"), [("demo", SMALL), ("demo-plt", DALLAS), ("demo-plt", SMALL)]
)
def test_a_wrong_hook_warns(reference: str, prompt: str) -> None:
    model = demo(reference)
    model.transcoders.feature_input_hook = "hook_resid_mid"  # type: ignore[misc]
    [warning] = warnings_of(model, prompt)
    assert "hooks" in warning


def shuffled(layers: Any, order: list[int]) -> tuple[Any, ...]:
    return tuple(layers[index] for index in order)


@pytest.mark.parametrize("order", [[4, 3, 2, 1, 0], [1, 2, 3, 4, 0], [0, 2, 1, 3, 4]])
def test_layers_in_another_order_warn(order: list[int]) -> None:
    model: Any = demo("demo-plt")
    model.transcoders.layers = shuffled(model.transcoders.layers, order)
    assert "order of layers" in warnings_of(model, SMALL)[0]


@pytest.mark.parametrize("reference", ["demo", "demo-plt"])
def test_another_model_warns(reference: str) -> None:
    model = demo(reference)
    with torch.no_grad():
        generator = torch.Generator().manual_seed(0)
        for parameter in model.model.hf_model.parameters():  # type: ignore[attr-defined]
            if parameter.ndim == 2:
                parameter.copy_(parameter[torch.randperm(len(parameter), generator=generator)])
    assert warnings_of(model, DALLAS)


def test_tiny_random_sets_are_not_judged() -> None:
    model = replacement("llama", "clt")
    graph = attribute(list(PROMPT), model)
    assert graph.metadata["plausibility"]["warnings"] == []
    assert len(graph.metadata["plausibility"]["reconstruction_error"]) == 3


def judged(per_position: int, stated: float | None, n_features: int = 480) -> list[str]:
    """The warnings of a perfect reconstruction with so many active features."""
    from circuit_tracer_cli.transcoders.components import ActiveFeatures

    tiny = transcoders("plt", n_features=n_features)
    tiny.stated_l0 = stated
    indices = torch.zeros(per_position * 3 * 6, 3, dtype=torch.int64)
    active = ActiveFeatures(indices, torch.ones(len(indices)), (0, 0, 0, len(indices)))
    outputs = [torch.ones(7, 24)] * 3
    return list(judge(tiny, active, torch.zeros(3, 7, 24), outputs, [0]).warnings)


@pytest.mark.parametrize(
    ("per_position", "stated", "warns"),
    [
        *[(20, 20.0, False), (60, 20.0, False), (120, 20.0, True), (3, 20.0, True)],
        *[(20, None, False), (100, None, True), (0, None, True)],
    ],
)
def test_numbers_of_active_features(per_position: int, stated: float | None, warns: bool) -> None:
    assert bool(judged(per_position, stated)) == warns


def test_what_a_set_states() -> None:
    def config(*names: str) -> SetConfig:
        return SetConfig("plt", "mlp.hook_in", "mlp.hook_out", transcoders=names or None)

    assert stated_l0(config()) is None
    assert (
        stated_l0(config("layer_0/width_16k/average_l0_76/params.npz", "layer_1/average_l0_24/p.npz")) == 50
    )
    assert stated_l0(config("layer_0/l0_small/p.safetensors")) is None
    tiny = transcoders("plt")
    assert tiny.expected_l0 is None
    for layer in tiny.layers:
        layer.activation = TopK(9)
    assert tiny.expected_l0 == 9
    assert backend("llama").has_closed_form
