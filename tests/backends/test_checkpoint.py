"""Every weight of a model comes from its checkpoint, or the model is refused by the name of the first that doesn't."""

from __future__ import annotations

import functools
import json
import re
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from tests.builders import FAMILIES, number_tokenizer, randomise
from torch import Tensor

from circuit_tracer_cli.backends.checkpoint import ALLOW_VARIABLE
from circuit_tracer_cli.backends.loading import load_model
from circuit_tracer_cli.errors import BadModel

Weights = dict[str, Tensor]


@functools.cache
def saved(family: str) -> Path:
    """A folder with a tiny model of a family, as transformers saves it."""
    import transformers

    class_name, values = FAMILIES[family]
    config = getattr(transformers, class_name)(**values, bos_token_id=0, eos_token_id=1, pad_token_id=None)
    model = transformers.AutoModelForCausalLM.from_config(config)
    randomise(model, seed=5)
    folder = Path(tempfile.mkdtemp(prefix=f"checkpoint-{family}-"))
    model.save_pretrained(folder)
    number_tokenizer().save_pretrained(folder)
    return folder


def names_of(family: str) -> list[str]:
    """The tensors of a family's checkpoint that text needs."""
    names = load_file(saved(family) / "model.safetensors")
    return [name for name in names if "vision_tower" not in name and "multi_modal_projector" not in name]


def changed(tmp_path: Path, family: str, change: Callable[[Weights], Weights], **config: object) -> str:
    """A copy of a family's folder with other weights or settings."""
    folder = tmp_path / family
    shutil.copytree(saved(family), folder)
    weights = change(load_file(folder / "model.safetensors"))
    save_file(
        {name: tensor.contiguous() for name, tensor in weights.items()},
        folder / "model.safetensors",
        metadata={"format": "pt"},
    )
    settings = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**settings, **config}))
    return str(folder)


def refused(folder: str, match: str) -> BadModel:
    with pytest.raises(BadModel, match=match) as caught:
        load_model(folder, torch.device("cpu"), torch.float32)
    assert "\n" not in str(caught.value)
    assert caught.value.hint
    return caught.value


def without(dropped: str) -> Callable[[Weights], Weights]:
    return lambda weights: {name: tensor for name, tensor in weights.items() if name != dropped}


def every_tensor(share: Callable[[str, list[str]], list[str]]) -> list[tuple[str, str]]:
    return [(family, name) for family in FAMILIES for name in share(family, names_of(family))]


def tail(name: str) -> str:
    """What the model's own name and the checkpoint's have in common."""
    return re.escape(".".join(name.split(".")[-2:]))


@pytest.mark.parametrize("family", FAMILIES)
def test_a_dropped_tensor_is_named(family: str, tmp_path: Path) -> None:
    """One of each family, another kind for each; all are tried in the long suite."""
    names = names_of(family)
    dropped = names[list(FAMILIES).index(family) * 7 % len(names)]
    refused(changed(tmp_path, family, without(dropped)), tail(dropped))


@pytest.mark.long
@pytest.mark.parametrize("family", FAMILIES)
def test_any_dropped_tensor_is_named(family: str, tmp_path: Path) -> None:
    for number, dropped in enumerate(names_of(family)):
        refused(changed(tmp_path / str(number), family, without(dropped)), tail(dropped))


@pytest.mark.parametrize("family", ["mixtral", "qwen3_moe"])
@pytest.mark.parametrize("kind", [0, 1, 2])
def test_a_dropped_expert_is_named_in_full(family: str, kind: int, tmp_path: Path) -> None:
    dropped = sorted(name for name in names_of(family) if ".layers.2." in name and "experts.3." in name)[kind]
    refused(changed(tmp_path, family, without(dropped)), re.escape(dropped))


@pytest.mark.parametrize("prefix", ["_orig_mod.", "module.", "base_model.model.", "policy."])
@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_a_prefix_is_named_with_what_to_do(prefix: str, family: str, tmp_path: Path) -> None:
    folder = changed(tmp_path, family, lambda weights: {prefix + n: t for n, t in weights.items()})
    error = refused(folder, f"extra prefix '{re.escape(prefix)}'")
    assert "save" in str(error.hint)


@pytest.mark.parametrize("family", ["llama", "gpt2", "gpt_neox", "gemma2"])
@pytest.mark.parametrize(("said", "what"), [(4, "missing"), (2, "left over")])
def test_another_number_of_layers_is_refused(family: str, said: int, what: str, tmp_path: Path) -> None:
    setting = "n_layer" if family == "gpt2" else "num_hidden_layers"
    types = {"layer_types": ["sliding_attention", "full_attention"] * (said // 2)}
    folder = changed(
        tmp_path, family, lambda weights: weights, **{setting: said}, **(types if family == "gemma2" else {})
    )
    refused(folder, rf"have 3 layers, but its config.json says {said}: .*\.{min(said, 3)}\..* is {what}")


def test_a_tensor_of_another_shape_is_named_with_both_shapes(tmp_path: Path) -> None:
    def cut(weights: Weights) -> Weights:
        return {**weights, "lm_head.weight": weights["lm_head.weight"][:40]}

    refused(changed(tmp_path, "llama", cut), r"lm_head.weight is \(40, 24\) .* but \(48, 24\)")


def test_a_tensor_too_many_is_named_unless_it_is_let_pass(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = changed(tmp_path, "llama", lambda weights: {**weights, "v_head.weight": torch.ones(1, 24)})
    refused(folder, "v_head.weight, which the model doesn't have")
    monkeypatch.setenv(ALLOW_VARIABLE, "v_head.")
    load_model(folder, torch.device("cpu"), torch.float32)


LEFTOVERS = {
    "llama": "model.layers.0.self_attn.rotary_emb.inv_freq",
    "gpt2": "transformer.h.0.attn.bias",
    "gptj": "transformer.h.0.attn.masked_bias",
    "gpt_neox": "gpt_neox.layers.0.attention.rotary_emb.inv_freq",
}


@pytest.mark.parametrize("family", LEFTOVERS)
def test_old_buffers_are_harmless(family: str, tmp_path: Path) -> None:
    folder = changed(tmp_path, family, lambda weights: {**weights, LEFTOVERS[family]: torch.ones(4)})
    load_model(folder, torch.device("cpu"), torch.float32)


def test_towers_for_images_may_be_missing(tmp_path: Path) -> None:
    kept = set(names_of("gemma3_multimodal"))
    folder = changed(
        tmp_path, "gemma3_multimodal", lambda weights: {n: t for n, t in weights.items() if n in kept}
    )
    load_model(folder, torch.device("cpu"), torch.float32)


@pytest.mark.parametrize("form", ["bin", "shards"])
def test_other_forms_of_a_checkpoint_are_checked_as_well(form: str, tmp_path: Path) -> None:
    folder = Path(changed(tmp_path, "llama", lambda weights: weights))
    weights = load_file(folder / "model.safetensors")
    dropped = "model.layers.1.self_attn.v_proj.weight"
    (folder / "model.safetensors").unlink()
    if form == "bin":
        torch.save({n: t for n, t in weights.items() if n != dropped}, folder / "pytorch_model.bin")
    else:
        halves = [n for n in weights if "layers.2" not in n], [n for n in weights if "layers.2" in n]
        index = {}
        for number, names in enumerate(halves):
            file = f"model-0000{number + 1}-of-00002.safetensors"
            index |= dict.fromkeys(names, file)
            shard = {n: weights[n] for n in names if n != dropped}
            save_file(shard, folder / file, metadata={"format": "pt"})
        (folder / "model.safetensors.index.json").write_text(
            json.dumps({"weight_map": index, "metadata": {}})
        )
    refused(str(folder), re.escape(dropped))


def test_an_adapter_beside_the_weights_is_refused(tmp_path: Path) -> None:
    folder = changed(tmp_path, "llama", lambda weights: weights)
    (Path(folder) / "adapter_config.json").write_text('{"peft_type": "LORA"}')
    assert "merge_and_unload" in str(refused(folder, "adapter_config.json").hint)


def test_an_adapter_alone_names_its_base(tmp_path: Path) -> None:
    (tmp_path / "adapter_config.json").write_text('{"base_model_name_or_path": "meta-llama/Llama-3.2-1B"}')
    assert "merge_and_unload" in str(
        refused(str(tmp_path), "is a PEFT adapter for meta-llama/Llama-3.2-1B, not a model").hint
    )
