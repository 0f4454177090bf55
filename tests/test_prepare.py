"""A request that judges itself, and what is found out about it before weights are read: once, and with one error per fault."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from circuit_tracer_cli.demo import model_dir
from circuit_tracer_cli.errors import (
    BadModel,
    BadPrompt,
    BadTarget,
    BadTranscoders,
    EmptyPrompt,
    InvalidValue,
    ModelMismatch,
    UnknownReference,
    Unsuitable,
    UnsuitablePrompt,
    UnsuitableTarget,
    UnsuitableValue,
)
from circuit_tracer_cli.prepare import prepare, set_up, setup_of
from circuit_tracer_cli.request import TraceRequest
from tests.builders import replacement

PROMPT = "Fact: the capital of the state containing Dallas is"


@pytest.mark.parametrize("prompt", ["", "  ", "\n"])
def test_an_empty_prompt_is_refused_where_the_request_is_made(prompt: str) -> None:
    with pytest.raises(EmptyPrompt):
        TraceRequest(prompt=prompt)


@pytest.mark.parametrize(
    ("values", "error", "part"),
    [
        ({"dtype": "int8"}, InvalidValue, "unknown dtype"),
        ({"offload": "tape"}, InvalidValue, "unknown offload"),
        ({"max_n_logits": 0}, InvalidValue, "max_n_logits"),
        ({"batch_size": 0}, InvalidValue, "batch_size"),
        ({"max_feature_nodes": -1}, InvalidValue, "max_feature_nodes"),
        ({"desired_logit_prob": float("nan")}, InvalidValue, "desired_logit_prob"),
        ({"targets": ("a", "a - b")}, BadTarget, "can't be mixed"),
        ({"system": "be kind"}, InvalidValue, "need --chat"),
        ({"device": "cpu", "device_map": "balanced"}, InvalidValue, "--device-map"),
    ],
)
def test_what_is_wrong_whatever_the_files_say_is_a_fault_of_the_command_line(
    values: dict[str, Any], error: type[InvalidValue], part: str
) -> None:
    with pytest.raises(error, match=part) as found:
        TraceRequest(prompt="a", **values)
    assert found.value.exit_code == 2


def test_names_are_spelled_out() -> None:
    request = TraceRequest(dtype="bf16", offload="None")
    assert (request.dtype, request.offload) == ("bfloat16", "none")


@pytest.mark.parametrize(
    ("values", "error", "part"),
    [
        ({"prompt": "a " * 100}, UnsuitablePrompt, "takes at most 64"),
        ({"prompt": "a", "chat": True}, UnsuitablePrompt, "chat template"),
        ({"prompt": "a", "targets": (" no such token",)}, UnsuitableTarget, "a target must be one token"),
        ({"max_n_logits": 10**6}, UnsuitableValue, "vocabulary has"),
        ({"device_map": "0-2:cpu"}, UnsuitableValue, "lacks layer 3"),
        ({"model": "user/model"}, UnsuitableValue, "embedded model"),
        ({"model": "./nowhere"}, BadModel, "no model folder"),
        ({"transcoder_set": "no-such-set"}, UnknownReference, "no-such-set"),
    ],
)
def test_what_only_the_files_tell_is_another_kind_of_fault(
    values: dict[str, Any], error: type[Exception], part: str
) -> None:
    with pytest.raises(error, match=part) as found:
        prepare(TraceRequest(**values))
    assert getattr(found.value, "exit_code", None) == 1


def test_a_fault_of_either_kind_is_caught_by_the_name_of_what_is_wrong() -> None:
    assert issubclass(UnsuitablePrompt, BadPrompt)
    assert issubclass(EmptyPrompt, BadPrompt)
    assert issubclass(UnsuitableTarget, (BadTarget, Unsuitable))


def test_a_length_beyond_the_models(tmp_path: Path) -> None:
    with pytest.raises(UnsuitablePrompt, match="65 tokens, but the model takes at most 64"):
        prepare(TraceRequest(), n_tokens=65)


def test_a_model_and_a_set_that_do_not_belong_together(tmp_path: Path) -> None:
    config = json.loads((model_dir() / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, "num_hidden_layers": 7}))
    with pytest.raises(ModelMismatch, match="n_layers 7"):
        set_up(TraceRequest(model=str(tmp_path)))
    (tmp_path / "empty").mkdir()
    with pytest.raises(BadModel):
        set_up(TraceRequest(model=str(tmp_path / "empty")))


def test_a_set_that_names_no_model(tmp_path: Path) -> None:
    from tests.builders import transcoders

    transcoders("plt").to_safetensors(tmp_path)
    (tmp_path / "config.yaml").write_text(
        "model_kind: transcoder_set\nfeature_input_hook: mlp.hook_in\nfeature_output_hook: hook_mlp_out\n"
    )
    with pytest.raises(BadTranscoders, match="doesn't name its model"):
        set_up(TraceRequest(transcoder_set=str(tmp_path)))


def test_many_prompts_share_one_setup(monkeypatch: pytest.MonkeyPatch) -> None:
    setup = set_up(TraceRequest())
    monkeypatch.setattr(
        "circuit_tracer_cli.prepare.set_up", lambda *_: pytest.fail("the files were read again")
    )
    request = TraceRequest(prompt=PROMPT, targets=(" Austin",))
    found = prepare(request, setup)
    assert found.tokens is not None
    assert found.tokens.strings[-1] == " is"
    assert len(found.tokens) == found.sizes.n_pos
    other = prepare(replace(request, prompt="Fact: the"), setup)
    assert other.sizes.n_pos < found.sizes.n_pos


def test_a_loaded_model_is_a_setup_of_the_same_sizes() -> None:
    model = replacement("llama", "clt")
    setup = setup_of(model)
    assert setup.shape == model.model.shape
    found = prepare(TraceRequest(max_n_logits=3), setup)
    assert found.sizes.n_layers == 3
    assert found.sizes.dtype_bytes == model.dtype.itemsize
    assert found.plan.fits
