from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from circuit_tracer_cli.errors import BadTranscoders, CircuitTracerError, MissingFile
from circuit_tracer_cli.transcoders.config import SetConfig, parse_config, read_config

GOOD = {
    "model_kind": "transcoder_set",
    "feature_input_hook": "mlp.hook_in",
    "feature_output_hook": "mlp.hook_out",
}
CRV = "facebook/crv-8b-instruct-transcoders"


def parse(**changes: Any) -> SetConfig:
    values = {key: value for key, value in (GOOD | changes).items() if value is not ...}
    return parse_config(values, Path("config.yaml"), "default")


def test_a_minimal_config() -> None:
    assert parse() == SetConfig("plt", "mlp.hook_in", "mlp.hook_out", scan="default")


def test_a_full_config() -> None:
    config = parse(
        model_kind="cross_layer_transcoder",
        model_name="user/model",
        scan=["a", "b"],
        activation="jump_relu",
        transcoders=["a.safetensors"],
        repo_id="user/repo",
    )
    assert config.kind == "clt"
    assert config.model_name == "user/model"
    assert config.scan == ["a", "b"]
    assert config.activation == "jumprelu"
    assert config.transcoders == ("a.safetensors",)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model_kind": ...}, "lacks model_kind"),
        ({"feature_input_hook": ...}, "lacks feature_input_hook"),
        ({"feature_output_hook": None}, "lacks feature_output_hook"),
        ({"feature_output_hook": "  "}, "feature_output_hook must be text"),
        ({"feature_input_hook": 3}, "feature_input_hook must be text"),
        ({"model_kind": "sae"}, "unknown model_kind 'sae'"),
        ({"model_name": ["a"]}, "model_name must be text"),
        ({"activation": "gelu"}, "unknown activation 'gelu'"),
        ({"activation": "relu", "k": 3}, "k: 3, which activation: relu doesn't use"),
        ({"somebody_elses": 3}, "unknown key somebody_elses"),
        ({"transcoders": ["a", "b", "a"]}, "lists a for two layers, entries 0 and 2"),
        ({"layers": [1]}, "one layer for each file"),
        ({"layers": [2, 1], "transcoders": ["a", "b"]}, "layers must be ascending"),
        ({"d_model": 0}, "d_model must be a whole number greater than 0"),
        ({"d_model": 4, "d_in": 5}, "another key says"),
        ({"ln2_hook_normalized": "both"}, "must be scaled or affine"),
        ({"ln2_hook_normalized": "affine"}, "but feature_input_hook is mlp.hook_in"),
        ({"k": 0}, "k must be a whole number greater than 0"),
        ({"k": True}, "k must be a whole number greater than 0"),
        ({"k": 2.5}, "k must be a whole number greater than 0"),
        ({"scan": 5}, "scan must be text"),
        ({"scan": [1]}, "scan must be text"),
        ({"transcoders": "a"}, "transcoders must be a list"),
        ({"transcoders": []}, "transcoders must be a list"),
    ],
)
def test_each_fault_has_its_sentence(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(BadTranscoders, match=message) as caught:
        parse(**changes)
    assert "config.yaml" in caught.value.message


def test_a_set_with_a_wrong_published_k() -> None:
    config = parse(activation="topk", k=64, scan=CRV)
    assert config.k == 128
    assert "k = 128" in config.notes[0]
    assert parse(activation="topk", k=128, scan=CRV).notes == ()
    assert parse(activation="topk", k=64, scan="a/copy").k == 64


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: [", "isn't valid YAML"),
        ("[" * 1000, "isn't valid YAML"),
        ("- a\n- b\n", "keys and values"),
        ("", "keys and values"),
        ("k: 1\nk: 2\n", "has the key 'k' twice"),
        ("x" * 2**21, "too large"),
        ("!!python/object/apply:os.getcwd []", "isn't valid YAML"),
    ],
)
def test_what_is_no_config_is_refused_in_one_line(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "config.yaml").write_text(text)
    with pytest.raises(BadTranscoders, match=message) as caught:
        read_config(tmp_path, "default")
    assert "\n" not in caught.value.message


def test_a_folder_without_a_config(tmp_path: Path) -> None:
    with pytest.raises(MissingFile, match=r"no config\.yaml") as caught:
        read_config(tmp_path, "default")
    assert "model_kind" in (caught.value.hint or "")


def test_bytes_that_are_no_text(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_bytes(b"\xff\xfe\x00model")
    with pytest.raises(BadTranscoders, match="isn't valid YAML"):
        read_config(tmp_path, "default")


scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8)
anything = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner)
)


@settings(max_examples=40, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.dictionaries(
        st.sampled_from([*GOOD, "scan", "activation", "k", "transcoders", "model_name", "x"]), anything
    )
)
def test_any_yaml_gives_a_config_or_one_of_our_errors(tmp_path: Path, values: dict[str, Any]) -> None:
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(values), encoding="utf-8")
    message = "reads"
    try:
        read_config(tmp_path, "default")
    except CircuitTracerError as error:
        message = error.message
    assert message
    assert "\n" not in message
