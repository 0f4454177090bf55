"""GGUF files: the same model as the weights that went into them, and refusals of what would be read wrongly."""

from __future__ import annotations

import math
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tokenizers.pre_tokenizers import ByteLevel

from circuit_tracer_cli.backends import gguf_file
from circuit_tracer_cli.backends.gguf_file import check_settings, gguf_folder
from circuit_tracer_cli.backends.loading import load_model
from circuit_tracer_cli.backends.model_source import find_model
from circuit_tracer_cli.cli.app import run
from circuit_tracer_cli.errors import BadModel, MissingExtra
from circuit_tracer_cli.graph.store import load_graph

gguf: Any = pytest.importorskip("gguf")

Changes = Callable[[Any], None]
ALPHABET = sorted(ByteLevel.alphabet())
WORD = "Ġcapital"
PIECES = ["<bos>", *ALPHABET, *(WORD[:n] for n in range(2, len(WORD) + 1))]
MERGES = [f"{WORD[:n]} {WORD[n]}" for n in range(1, len(WORD))]
N_HEADS, N_KV, D_HEAD, D_MODEL, D_MLP = 4, 2, 8, 32, 48


def tiny_llama() -> Any:
    """A random model whose vocabulary is the pieces above."""
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(PIECES), hidden_size=D_MODEL, intermediate_size=D_MLP, num_hidden_layers=2, rope_theta=5e3,
        num_attention_heads=N_HEADS, num_key_value_heads=N_KV, max_position_embeddings=64, rms_norm_eps=1e-5,
        tie_word_embeddings=False, attn_implementation="eager",
    )  # fmt: skip
    return LlamaForCausalLM(config).eval()


def interleaved(weight: torch.Tensor, heads: int) -> torch.Tensor:
    """Rows of a query or key matrix in llama.cpp's order, which rotates neighbours rather than halves."""
    return weight.view(heads, 2, D_HEAD // 2, -1).transpose(1, 2).reshape(weight.shape)


def write_gguf(path: Path, model: Any, change: Changes | None = None, **others: Any) -> Path:
    """Write a model as llama.cpp would."""
    writer = gguf.GGUFWriter(path, "llama")
    settings = {
        "pre": "gpt-2", "merges": MERGES, "rope": 5e3, "add_bos": True, "tensors": {}, "skip": (), **others
    }  # fmt: skip
    writer.add_block_count(2)
    writer.add_context_length(64)
    writer.add_embedding_length(D_MODEL)
    writer.add_feed_forward_length(D_MLP)
    writer.add_head_count(N_HEADS)
    writer.add_head_count_kv(N_KV)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_freq_base(settings["rope"])
    writer.add_rope_dimension_count(D_HEAD)
    writer.add_vocab_size(len(PIECES))
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(settings["pre"])
    writer.add_token_list(PIECES)
    writer.add_token_types([3, *([1] * (len(PIECES) - 1))])
    writer.add_token_merges(settings["merges"])
    writer.add_bos_token_id(0)
    writer.add_add_bos_token(settings["add_bos"])
    if change:
        change(writer)
    weights = model.state_dict()
    tensors = {
        "token_embd.weight": weights["model.embed_tokens.weight"],
        "output_norm.weight": weights["model.norm.weight"],
        "output.weight": weights["lm_head.weight"],
        **settings["tensors"],
    }
    parts = {
        "attn_norm": "input_layernorm", "ffn_norm": "post_attention_layernorm", "attn_q": "self_attn.q_proj",
        "attn_k": "self_attn.k_proj", "attn_v": "self_attn.v_proj", "attn_output": "self_attn.o_proj",
        "ffn_gate": "mlp.gate_proj", "ffn_up": "mlp.up_proj", "ffn_down": "mlp.down_proj",
    }  # fmt: skip
    for layer in range(2):
        for short, name in parts.items():
            weight = weights[f"model.layers.{layer}.{name}.weight"]
            if short in ("attn_q", "attn_k"):
                weight = interleaved(weight, N_HEADS if short == "attn_q" else N_KV)
            tensors[f"blk.{layer}.{short}.weight"] = weight
    for name, weight in tensors.items():
        if name not in settings["skip"]:
            writer.add_tensor(name, np.ascontiguousarray(weight.numpy()))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


@pytest.fixture(scope="module")
def llama() -> Any:
    return tiny_llama()


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CIRCUIT_TRACER_CACHE_DIR", str(tmp_path / "cache"))


def test_a_file_gives_the_logits_of_its_model(llama: Any, tmp_path: Path) -> None:
    path = write_gguf(tmp_path / "tiny.gguf", llama)
    source = find_model(str(path))
    model, tokenizer, _ = load_model(source.name, torch.device("cpu"), torch.float32)
    assert source.folder == gguf_folder(str(path))
    assert source.config()["hidden_act"] == "silu"
    tokens = torch.tensor([tokenizer("the capital").input_ids])
    assert tokens[0].tolist() == [0, *(PIECES.index(letter) for letter in "the"), PIECES.index(WORD)]
    with torch.no_grad():
        torch.testing.assert_close(model(tokens).logits, llama(tokens).logits, atol=1e-6, rtol=1e-5)
    graph = tmp_path / "g.safetensors"
    assert run(["attribute", "-p", "the capital", "-m", str(path), "-t", "neurons", "-o", str(graph)]) == 0
    assert load_graph(graph).input_tokens.tolist() == tokens[0].tolist()


def test_a_second_time_reads_nothing_and_a_changed_file_is_converted_again(
    llama: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_gguf(tmp_path / "tiny.gguf", llama)
    folder = gguf_folder(str(path))
    monkeypatch.setattr(gguf_file, "_convert", lambda path, folder: pytest.fail("converted again"))
    assert gguf_folder(str(path)) == folder
    monkeypatch.undo()
    monkeypatch.setenv("CIRCUIT_TRACER_CACHE_DIR", str(tmp_path / "cache"))
    write_gguf(path, llama, add_bos=False, pre="smollm")
    other = gguf_folder(str(path))
    assert other != folder
    _, tokenizer, _ = load_model(str(other), torch.device("cpu"), torch.float32)
    assert tokenizer("12").input_ids == [PIECES.index("1"), PIECES.index("2")]
    assert not [one for one in other.parent.iterdir() if one.name.endswith(".unfinished")]


def yarn(writer: Any) -> None:
    writer.add_rope_scaling_type(gguf.RopeScalingType.YARN)


def unknown(writer: Any) -> None:
    writer.add_float32("llama.residual_scale", 0.5)


def in_parts(writer: Any) -> None:
    writer.add_uint16("split.count", 3)


@pytest.mark.parametrize(
    ("change", "others", "message"),
    [
        (yarn, {}, "llama.rope.scaling.type = yarn, but transformers reads it as default"),
        (unknown, {}, "llama.residual_scale = 0.5, which this program doesn't know"),
        (in_parts, {}, "one of 3 parts"),
        (None, {"tensors": {"rope_freqs.weight": torch.ones(4)}}, "the tensor rope_freqs.weight"),
        (None, {"skip": ("blk.1.ffn_up.weight",)}, "lack model.layers.1.mlp.up_proj.weight"),
        (None, {"pre": "some-rule"}, "the rule 'some-rule'"),
        (None, {"merges": MERGES[:-1]}, "cuts 'capital' into pieces"),
    ],
)
def test_what_would_be_read_wrongly_is_named(
    llama: Any, tmp_path: Path, change: Changes | None, others: dict[str, Any], message: str
) -> None:
    path = write_gguf(tmp_path / "tiny.gguf", llama, change, **others)
    with pytest.raises(BadModel, match=message):
        gguf_folder(str(path))
    assert not list((tmp_path / "cache" / "models").glob("tiny*"))


def test_a_tokenizer_beside_the_file_is_used_if_its_tokens_are_the_files(llama: Any, tmp_path: Path) -> None:
    whole = gguf_folder(str(write_gguf(tmp_path / "tiny.gguf", llama)))
    (tmp_path / "bad").mkdir()
    path = write_gguf(tmp_path / "bad" / "tiny.gguf", llama, merges=MERGES[:-1])
    shutil.copy(whole / "tokenizer.json", path.parent)
    _, tokenizer, _ = load_model(str(gguf_folder(str(path))), torch.device("cpu"), torch.float32)
    assert tokenizer(" capital").input_ids == [0, PIECES.index(WORD)]
    changed = (path.parent / "tokenizer.json").read_text(encoding="utf-8").replace("<bos>", "<first>")
    (path.parent / "tokenizer.json").write_text(changed, encoding="utf-8")
    with pytest.raises(BadModel, match="token 0 is '<first>'"):
        gguf_folder(str(path))


def test_a_model_that_reads_no_english_is_refused(
    llama: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gguf_file, "_LEAST_VOCABULARY", 2)
    path = write_gguf(tmp_path / "tiny.gguf", llama)
    with pytest.raises(BadModel, match=f"guessing has {math.log(len(PIECES)):.1f}"):
        gguf_folder(str(path))


def test_files_that_are_not_there_or_something_else(tmp_path: Path) -> None:
    (tmp_path / "text.gguf").write_text("this is a text, not a model")
    with pytest.raises(BadModel, match="isn't a GGUF file"):
        find_model(str(tmp_path / "text.gguf"))
    for name in ("nothing.gguf", "user/nothing.gguf", "user/repo/x.gguf@"):
        with pytest.raises(BadModel, match="there is no file"):
            find_model(name)


def test_the_package_is_named_where_it_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "gguf", None)
    with pytest.raises(MissingExtra, match="package gguf"):
        find_model("x.gguf")


def test_settings_of_nested_configurations_count() -> None:
    config = {"rope_parameters": {"full": {"rope_theta": 1e6}, "sliding": {"rope_theta": 1e4}}, "head_dim": 8}
    metadata = {
        "general.architecture": "gemma3",
        "gemma3.rope.freq_base": 1e6,
        "gemma3.rope.dimension_count": 8,
    }
    check_settings("x.gguf", metadata, config)
    with pytest.raises(BadModel, match="freq_base = 20000"):
        check_settings("x.gguf", {**metadata, "gemma3.rope.freq_base": 20000.0}, config)
