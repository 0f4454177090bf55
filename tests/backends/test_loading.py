"""Loading: multimodal classes, missing packages, unknown classes."""

from __future__ import annotations

import gc
import importlib.util
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.builders import BACKEND_NAMES, FAMILIES, PROMPT, number_tokenizer, randomise

from circuit_tracer_cli.backends import backend_class
from circuit_tracer_cli.backends.base import Hooks
from circuit_tracer_cli.backends.families import flat
from circuit_tracer_cli.backends.loading import load_model
from circuit_tracer_cli.backends.model_config import fact, read_config
from circuit_tracer_cli.errors import InvalidValue, MissingExtra, UnsupportedArchitecture


@pytest.fixture(scope="module")
def multimodal(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny Gemma 3 of the multimodal class, saved as published ones are."""
    import transformers

    class_name, values = FAMILIES["gemma3_multimodal"]
    config = getattr(transformers, class_name)(**values)
    model = transformers.AutoModelForCausalLM.from_config(config)
    assert type(model).__name__ == "Gemma3ForConditionalGeneration"
    randomise(model, seed=3)
    folder = tmp_path_factory.mktemp("gemma3")
    model.save_pretrained(folder)
    number_tokenizer().save_pretrained(folder)
    return folder


@pytest.mark.parametrize("name", BACKEND_NAMES)
def test_the_text_part_of_a_multimodal_model_gives_its_logits(multimodal: Path, name: str) -> None:
    import transformers

    if name == "nnsight":
        pytest.importorskip("nnsight")
    model = backend_class(name).from_pretrained(str(multimodal), torch.device("cpu"), torch.float32)
    assert model.config.original_architecture == "Gemma3ForConditionalGeneration"
    assert (model.shape.n_layers, fact(read_config(multimodal), "d_vocab")) == (3, 48)
    plain = transformers.AutoModelForCausalLM.from_pretrained(multimodal, attn_implementation="eager").eval()
    tokens = torch.tensor(PROMPT)
    with torch.no_grad():
        want = plain(tokens[None]).logits[0]
        got, _ = model.run(tokens, Hooks())
    torch.testing.assert_close(got, want, atol=1e-5, rtol=1e-5)


def test_what_a_text_part_leaves_to_its_class_is_filled_in() -> None:
    text = {"model_type": "gemma3_text", "hidden_size": 2560, "num_hidden_layers": 34}
    config = {
        "architectures": ["Gemma3ForConditionalGeneration"],
        "model_type": "gemma3",
        "text_config": text,
    }
    assert flat(config)["num_attention_heads"] == 8
    assert flat(config)["vocab_size"] > 200_000
    assert fact(config, "d_model") == 2560


def test_without_nnsight_one_line_tells_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    found = importlib.util.find_spec

    def without(name: str, *rest: Any) -> Any:
        return None if name == "nnsight" else found(name, *rest)

    monkeypatch.setattr("circuit_tracer_cli.backends.nnsight.find_spec", without)
    with pytest.raises(MissingExtra, match="needs the package nnsight") as caught:
        backend_class("nnsight").from_pretrained("demo", torch.device("cpu"), torch.float32)
    assert "pip install 'circuit-tracer-cli[nnsight]'" in str(caught.value.hint)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", BACKEND_NAMES)
def test_a_server_is_never_asked(name: str) -> None:
    with pytest.raises(InvalidValue, match="remote=True isn't supported"):
        backend_class(name).from_pretrained("demo", torch.device("cpu"), torch.float32, remote=True)


def test_an_unknown_class_is_refused_before_its_weights_are_read(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"architectures": ["MambaForCausalLM"], "model_type": "mamba"}')
    with pytest.raises(
        UnsupportedArchitecture, match="the places of its norms, attention, MLP and embedding"
    ) as caught:
        backend_class("transformerlens").from_pretrained(str(tmp_path), torch.device("cpu"), torch.float32)
    assert "backends/families/" in str(caught.value.hint)


@pytest.fixture(scope="module")
def wide(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A float32 checkpoint of 96 MiB in tensors of 3 MiB."""
    import transformers
    from safetensors.torch import save_file

    config = transformers.LlamaConfig(
        vocab_size=48, hidden_size=512, intermediate_size=1536, num_hidden_layers=8, num_attention_heads=8,
        tie_word_embeddings=True, bos_token_id=0, eos_token_id=1,
    )  # fmt: skip
    config.architectures = ["LlamaForCausalLM"]
    with torch.device("meta"):
        model = transformers.LlamaForCausalLM(config)
    folder = tmp_path_factory.mktemp("wide")
    weights = {n: torch.full(p.shape, 0.01) for n, p in model.named_parameters()}
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    config.save_pretrained(folder)
    number_tokenizer().save_pretrained(folder)
    return folder


LINUX = pytest.mark.skipif(
    not Path("/proc/self/clear_refs").exists(), reason="needs Linux's account of memory"
)


@LINUX
def test_a_model_cast_to_16_bits_never_has_its_file_beside_it(wide: Path) -> None:
    load_model(str(wide), torch.device("cpu"), torch.bfloat16)  # what the first call imports
    gc.collect()
    Path("/proc/self/clear_refs").write_text("5")  # the peak counts from here
    before = resident("VmRSS")
    model, _, _ = load_model(str(wide), torch.device("cpu"), torch.bfloat16)
    held = sum(p.numel() * p.element_size() for p in model.parameters())
    assert resident("VmHWM") - before < held + 24 * 2**20


@LINUX
@pytest.mark.parametrize("mapped", [True, False])
def test_weights_are_in_their_file_or_have_memory_of_their_own(wide: Path, mapped: bool) -> None:
    model, _, _ = load_model(str(wide), torch.device("cpu"), torch.float32, mapped=mapped)
    assert (str(wide / "model.safetensors") in Path("/proc/self/maps").read_text()) is mapped
    assert all(bool((p == 0.01).all()) for p in model.parameters())


def resident(name: str) -> int:
    """A figure of the process's memory in bytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{name}:"))
