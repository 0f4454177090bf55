"""The reference's own results (tiny models, float32), setting by setting."""

from __future__ import annotations

import functools
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from circuit_tracer_cli.replacement import ReplacementModel

GOLDEN = Path(__file__).resolve().parents[2] / ".." / "shared" / "golden"
CASES = sorted(path.name for path in (GOLDEN / "cases").glob("*-interventions"))

pytestmark = pytest.mark.skipif(not CASES, reason="the golden data isn't beside this checkout")


@functools.cache
def case(name: str) -> tuple[dict[str, Any], dict[str, Any], dict[str, Tensor], ReplacementModel]:
    """Inputs, expected texts, expected tensors and the model of a case."""
    folder = (GOLDEN / "cases" / name).resolve()
    inputs = json.loads((folder / "inputs.json").read_text(encoding="utf-8"))
    expected = json.loads((folder / "expected.json").read_text(encoding="utf-8"))
    paths = [str((folder / inputs[part]).resolve()) for part in ("model", "transcoders")]
    model = ReplacementModel.from_pretrained(paths[0], paths[1], device="cpu")
    return inputs, expected, load_file(folder / "expected.safetensors"), model


def settings() -> list[tuple[str, str]]:
    found = []
    for name in CASES:
        inputs = json.loads((GOLDEN / "cases" / name / "inputs.json").read_text(encoding="utf-8"))
        found += [(name, setting) for setting in inputs["settings"]]
    return found


def arguments(setting: dict[str, Any]) -> tuple[list[tuple[Any, ...]], dict[str, Any]]:
    """Tuples and keyword arguments as a script would write them."""
    edits = [
        (layer, slice(*position["slice"]) if isinstance(position, dict) else position, feature, value)
        for layer, position, feature, value in setting["interventions"]
    ]
    kwargs = dict(setting["kwargs"])
    if kwargs.get("constrained_layers"):
        kwargs["constrained_layers"] = range(*kwargs["constrained_layers"])
    return edits, kwargs


def close(got: Tensor, want: Tensor, atol: float) -> None:
    got = got.to_dense() if got.is_sparse else got
    torch.testing.assert_close(got.reshape(want.shape), want, atol=atol, rtol=1e-5)


@pytest.mark.parametrize("name", CASES)
def test_unmodified_run(name: str) -> None:
    inputs, _, expected, model = case(name)
    ids = torch.tensor(inputs["input_ids"])
    logits, activations = model.get_activations(ids)
    _, pre_activations = model.get_activations(ids, apply_activation_function=False)
    close(logits, expected["base.logits"], 1e-4)
    close(activations, expected["base.acts"], 5e-4)
    close(pre_activations, expected["base.preacts"], 5e-4)


@pytest.mark.parametrize(("name", "setting"), settings())
def test_setting(name: str, setting: str) -> None:
    inputs, texts, expected, model = case(name)
    wanted = inputs["settings"][setting]
    edits, kwargs = arguments(wanted)
    if "generate" in wanted:
        options = {key: value for key, value in wanted["generate"].items() if key != "prompt_passed_as"}
        text, logits, activations = model.feature_intervention_generate(
            inputs["prompt"], edits, **kwargs, **options
        )
        assert text == texts["generated"][setting]
    else:
        logits, activations = model.feature_intervention(torch.tensor(inputs["input_ids"]), edits, **kwargs)
    assert activations is not None
    close(logits, expected[f"{setting}.logits"], 1e-4)
    close(activations, expected[f"{setting}.activations"], 5e-4)
