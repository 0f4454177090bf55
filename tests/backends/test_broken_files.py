"""A model's small files, broken in every way that was met: a named cause, never an error of a library underneath."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from circuit_tracer_cli.backends.loading import load_model
from circuit_tracer_cli.demo import model_dir
from circuit_tracer_cli.errors import BadModel, CircuitTracerError

DEEP = "[" * 100_000 + "]" * 100_000
TOKENIZER = (model_dir() / "tokenizer.json").read_text(encoding="utf-8")
CONFIG = json.loads((model_dir() / "config.json").read_text(encoding="utf-8"))


def with_file(folder: Path, name: str, content: str) -> str:
    """The demo's model with one file replaced."""
    folder.mkdir(exist_ok=True)
    for path in model_dir().iterdir():
        if path.is_file() and path.name != name:
            (folder / path.name).unlink(missing_ok=True)
            (folder / path.name).symlink_to(path)
    (folder / name).unlink(missing_ok=True)
    (folder / name).write_text(content, encoding="utf-8")
    return str(folder)


CASES = [
    ("tokenizer.json", "", "tokenizer.json is empty|tokenizer"),
    ("tokenizer.json", "null", "tokenizer.json contains null"),
    ("tokenizer.json", "[]", "tokenizer.json contains list"),
    ("tokenizer.json", TOKENIZER[: len(TOKENIZER) // 2], "tokenizer.json is not JSON"),
    ("tokenizer.json", TOKENIZER.replace('"vocab"', '"v0cab"'), "vocab"),
    ("tokenizer.json", '{"a": 1}', "lack the entry 'added_tokens'"),
    ("tokenizer.json", DEEP, "tokenizer.json is nested too deeply"),
    ("tokenizer_config.json", "null", "tokenizer_config.json contains null"),
    ("tokenizer_config.json", "[]", "tokenizer_config.json contains list"),
    ("tokenizer_config.json", DEEP, "tokenizer_config.json is nested too deeply"),
    ("tokenizer_config.json", '{"bos_token": 3}', "bos_token"),
    ("config.json", DEEP, "config.json is nested too deeply"),
    ("config.json", "[]", "not a JSON object"),
    ("config.json", json.dumps({**CONFIG, "num_attention_heads": 0}), "num_attention_heads is 0"),
    ("config.json", json.dumps({**CONFIG, "num_key_value_heads": 0}), "num_key_value_heads is 0"),
    ("config.json", json.dumps({**CONFIG, "rms_norm_eps": None}), "rms_norm_eps is None"),
    ("config.json", json.dumps({**CONFIG, "model_type": "nope"}), "nope"),
    ("config.json", json.dumps({**CONFIG, "architectures": 3}), "architecture 3"),
    ("config.json", json.dumps({**CONFIG, "hidden_act": "sulu"}), "sulu|hidden_act"),
]


def test_a_folder_without_a_tokenizer_is_not_sent_to_log_in(tmp_path: Path) -> None:
    folder = Path(with_file(tmp_path, "tokenizer.json", ""))
    (folder / "tokenizer.json").unlink()
    with pytest.raises(BadModel, match=r"has no tokenizer.json") as caught:
        load_model(str(folder), torch.device("cpu"), torch.float32)
    assert "log in" not in str(caught.value.hint)


@pytest.mark.parametrize(
    ("name", "content", "cause"), CASES, ids=[f"{name}-{number}" for number, (name, *_) in enumerate(CASES)]
)
def test_the_cause_is_named(name: str, content: str, cause: str, tmp_path: Path) -> None:
    with pytest.raises(BadModel, match=cause) as caught:
        load_model(with_file(tmp_path / "model", name, content), torch.device("cpu"), torch.float32)
    assert "\n" not in str(caught.value)


SCALARS = st.one_of(
    st.none(), st.booleans(), st.integers(-2, 3), st.just(10**30), st.floats(), st.text(max_size=3)
)
VALUES = st.one_of(
    SCALARS, st.lists(SCALARS, max_size=2), st.dictionaries(st.text(max_size=3), SCALARS, max_size=2)
)


@given(key=st.sampled_from(sorted(CONFIG)), value=VALUES)
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_value_of_a_setting_loads_or_is_refused(key: str, value: object, tmp_path: Path) -> None:
    folder = with_file(tmp_path / "model", "config.json", json.dumps({**CONFIG, key: value}))
    with contextlib.suppress(CircuitTracerError):
        load_model(folder, torch.device("cpu"), torch.float32)
