"""A process that keeps its model traces the next prompt without loading anything again."""

from __future__ import annotations

import shutil
import socket
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

from circuit_tracer_cli import ReplacementModel, attribute
from circuit_tracer_cli.demo import model_dir

PROMPTS = ("Fact: the capital of the state containing Dallas is", "The opposite of small is")


def test_a_second_prompt_loads_nothing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The files are gone after the first trace, the hub and the loader are out of reach: the second needs none of them."""
    shutil.copytree(model_dir(), tmp_path / "model")
    shutil.copytree(model_dir().parent / "plt", tmp_path / "set")
    model = ReplacementModel.from_pretrained(
        str(tmp_path / "model"), str(tmp_path / "set"), lazy_encoder=False, lazy_decoder=False
    )
    first = attribute(PROMPTS[0], model)
    shutil.rmtree(tmp_path / "model")
    shutil.rmtree(tmp_path / "set")

    def unreachable(*given: Any, **more: Any) -> Any:
        raise AssertionError("something is loaded again")

    monkeypatch.setattr(transformers.AutoModelForCausalLM, "from_pretrained", unreachable)
    monkeypatch.setattr(transformers.AutoTokenizer, "from_pretrained", unreachable)
    monkeypatch.setattr(socket, "getaddrinfo", unreachable)
    modules = set(sys.modules)
    second, again = attribute(PROMPTS[1], model), attribute(PROMPTS[0], model)
    assert set(sys.modules) == modules
    assert second.input_string != first.input_string
    torch.testing.assert_close(again.edges.values, first.edges.values)
