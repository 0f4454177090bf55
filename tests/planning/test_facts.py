"""Sizes read from the demo's files, and from configurations of models whose weights aren't here."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from transformers import CONFIG_MAPPING, AutoModelForCausalLM

from circuit_tracer_cli.backends.model_config import read_config
from circuit_tracer_cli.demo import model_dir
from circuit_tracer_cli.planning.facts import active_by_the_set, from_sizes, parameters
from circuit_tracer_cli.prepare import prepare
from circuit_tracer_cli.request import TraceRequest
from circuit_tracer_cli.transcoders.config import SetConfig


def test_the_demo() -> None:
    sizes = prepare(TraceRequest(), n_tokens=11).sizes
    assert (sizes.n_layers, sizes.d_model, sizes.kind) == (5, 128, "clt")
    config = read_config(model_dir())
    counted = parameters(model_dir(), config)
    assert counted == sizes.model_params
    assert from_sizes(config) == pytest.approx(counted, rel=0.02)
    assert sizes.encoder_bytes == 5 * sizes.d_transcoder * 128 * 4
    assert sizes.decoder_bytes == 15 * sizes.d_transcoder * 128 * 4
    assert sizes.stored_bytes == torch.finfo(getattr(torch, config["dtype"])).bits // 8
    half = prepare(TraceRequest(dtype="bf16"), n_tokens=11).sizes
    assert 2 * half.encoder_bytes == sizes.encoder_bytes


def test_the_plan_grows_with_the_prompt_and_the_active_features() -> None:
    request = TraceRequest(prompt="Fact: the capital of the state containing Dallas is")
    found = prepare(request)
    assert found.sizes.n_pos == 11
    assert found.plan.fits
    longer = replace(request, prompt=None)
    assert prepare(longer, found.setup, n_tokens=60).plan.host_peak > found.plan.host_peak
    assert prepare(request, found.setup, active=1.0).sizes.active == 50


def test_a_prompt_that_is_not_known_yet_has_a_usual_length() -> None:
    assert prepare(TraceRequest()).sizes.n_pos == 64


def test_a_small_set_has_few_active_features() -> None:
    sizes = prepare(TraceRequest()).sizes
    assert sizes.active_per_position == pytest.approx(sizes.d_transcoder / 100)


@pytest.mark.parametrize("name", ["gpt2", "gptj", "gpt_neox", "phi", "llama", "smollm3"])
def test_parameters_follow_from_a_configuration(name: str) -> None:
    """As for a model of the hub, of which no weights are here: the class's own defaults, built without memory."""
    config = CONFIG_MAPPING[name]()
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    values = {**config.to_dict(), "architectures": [type(model).__name__]}
    assert from_sizes(values) == pytest.approx(model.num_parameters(), rel=0.03)


@pytest.mark.parametrize(
    ("settings", "count", "said_by"),
    [
        (
            {"transcoders": ("layer_0/average_l0_76/params.npz", "layer_1/average_l0_65/params.npz")},
            70.5,
            "names of its files",
        ),
        ({"activation": "topk", "k": 32}, 32.0, "k of 32"),
        ({"activation": "cross_layer_topk", "k": 32}, 8.0, "k of 32 over all layers"),
        ({}, None, None),
    ],
)
def test_active_features_by_the_sets_own_figures(
    settings: dict[str, Any], count: float | None, said_by: str | None
) -> None:
    config = SetConfig("plt", "mlp.hook_in", "mlp.hook_out", **settings)
    found, by = active_by_the_set(config, 4)
    assert found == count
    assert by is None if said_by is None else said_by in str(by)
