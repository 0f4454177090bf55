"""Sizes read from the demo's files, and from files that aren't there or don't belong together."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import CONFIG_MAPPING, AutoModelForCausalLM

from circuit_tracer_cli.demo import model_dir
from circuit_tracer_cli.errors import BadModel, CircuitTracerError, InvalidValue, ModelMismatch, UsageError
from circuit_tracer_cli.pipeline import TraceRequest, estimate_trace
from circuit_tracer_cli.planning.facts import from_sizes, model_config, parameters, trace_sizes


def test_the_demo() -> None:
    sizes = trace_sizes("demo", model_dir(), n_pos=11)
    assert (sizes.n_layers, sizes.d_model, sizes.kind) == (5, 128, "clt")
    config = model_config(model_dir())
    counted = parameters(model_dir(), config)
    assert counted == sizes.model_params
    assert from_sizes(config) == pytest.approx(counted, rel=0.02)
    assert sizes.encoder_bytes == 5 * sizes.d_transcoder * 128 * 4
    assert sizes.decoder_bytes == 15 * sizes.d_transcoder * 128 * 4
    half = trace_sizes("demo", model_dir(), n_pos=11, dtype="bfloat16")
    assert 2 * half.encoder_bytes == sizes.encoder_bytes


def test_an_estimate_of_the_demo_reads_no_weights() -> None:
    request = TraceRequest(prompt="Fact: the capital of the state containing Dallas is")
    found = estimate_trace(request)
    assert found.sizes.n_pos == 11
    assert found.plan.fits
    assert found.device in ("cpu", "cuda", "mps")
    assert estimate_trace(request, n_tokens=60).plan.host_peak > found.plan.host_peak
    assert estimate_trace(request, active=1.0).sizes.active == 50


def test_a_prompt_that_is_not_known_yet_has_a_usual_length(tmp_path: Path) -> None:
    assert trace_sizes("demo", model_dir(), n_pos=None).n_pos == 64
    assert estimate_trace(TraceRequest(prompt="")).sizes.n_pos == 64
    with pytest.raises(InvalidValue, match="65 tokens, the model takes at most 64"):
        trace_sizes("demo", model_dir(), n_pos=65)


def test_a_small_set_has_few_active_features() -> None:
    sizes = trace_sizes("demo", model_dir(), n_pos=11)
    assert sizes.active_per_position == pytest.approx(sizes.d_transcoder / 100)


@pytest.mark.parametrize("name", ["gpt2", "gptj", "gpt_neox", "phi", "llama", "smollm3"])
def test_parameters_follow_from_a_configuration(name: str) -> None:
    """As for a model of the hub, of which no weights are here: the class's own defaults, built without memory."""
    config = CONFIG_MAPPING[name]()
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    values = {**config.to_dict(), "architectures": [type(model).__name__]}
    assert from_sizes(values) == pytest.approx(model.num_parameters(), rel=0.03)


def test_what_does_not_belong_together(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="names no model"):
        model_config(None)
    with pytest.raises(BadModel):
        model_config(tmp_path)
    (tmp_path / "config.json").write_text(
        '{"architectures": ["LlamaForCausalLM"], "num_hidden_layers": 7, "hidden_size": 128, "num_attention_heads": 4, '
        '"intermediate_size": 8, "vocab_size": 9, "max_position_embeddings": 64}'
    )
    with pytest.raises(ModelMismatch, match="n_layers 7"):
        trace_sizes("demo", tmp_path, n_pos=4)
    with pytest.raises(CircuitTracerError):
        trace_sizes("no-such-set", model_dir(), n_pos=4)
