"""`ln2.hook_normalized` in models with LayerNorm: which of its two meanings is read, and a warning if L0 says the other."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import yaml
from tests.attribution.test_some_layers import Notes
from tests.builders import PROMPT, backend

from circuit_tracer_cli.attribution.attribute import attribute
from circuit_tracer_cli.replacement import ReplacementModel
from circuit_tracer_cli.transcoders.activations import JumpReLU
from circuit_tracer_cli.transcoders.loading import load_transcoders
from circuit_tracer_cli.transcoders.plt import SingleLayerTranscoder, TranscoderSet

L0 = 30


def normalized(model: object, tokens: torch.Tensor, layer: int, meaning: str) -> torch.Tensor:
    """What the hook hands out in each generation of TransformerLens, from the Hugging Face model's own modules."""
    seen = {}
    block = model.transformer.h[layer]  # type: ignore[attr-defined]
    handle = block.ln_2.register_forward_hook(lambda module, args, out: seen.update(x=args[0], out=out))
    with torch.no_grad():
        model(tokens[None])  # type: ignore[operator]
    handle.remove()
    x = seen["x"][0]
    centred = x - x.mean(-1, keepdim=True)
    scaled = centred / (centred.square().mean(-1, keepdim=True) + block.ln_2.eps).sqrt()
    return scaled if meaning == "scaled" else seen["out"][0]


def write(folder: Path, trained: str) -> ReplacementModel:
    """A GPT-2 and a set with thirty features active per token and layer on what it was trained to read."""
    model = backend("gpt2")
    hf = model.hf_model  # type: ignore[attr-defined]
    with torch.no_grad():
        for block in hf.transformer.h:
            block.ln_2.weight.mul_(1.6)
            block.ln_2.bias.add_(0.2)
    model.forget_weights()
    tokens = torch.tensor(list(PROMPT))
    generator = torch.Generator().manual_seed(0)
    layers = []
    for layer in range(model.shape.n_layers):
        x = normalized(hf, tokens, layer, trained)
        d = x.shape[1]
        W_enc = torch.randn(8 * d, d, generator=generator)
        z = (x @ W_enc.T)[1:]
        cut = z.flatten().sort(descending=True).values[L0 * len(z)]
        layers.append(
            SingleLayerTranscoder.from_tensors(
                W_enc,
                torch.randn(8 * d, d, generator=generator),
                torch.zeros(8 * d),
                torch.zeros(d),
                JumpReLU(torch.full((8 * d,), float(cut))),
            )
        )
    TranscoderSet(layers, "ln2.hook_normalized", "hook_mlp_out").to_safetensors(folder / f"l0_{L0}")
    return ReplacementModel(model, TranscoderSet(layers, "ln2.hook_normalized", "hook_mlp_out"))


@pytest.mark.parametrize("trained", ["scaled", "affine"])
def test_the_meaning_is_chosen_recorded_and_doubted_where_it_doesnt_fit(trained: str, tmp_path: Path) -> None:
    whole = write(tmp_path, trained)
    n_layers = whole.cfg.n_layers
    names = [f"l0_{L0}/layer_{layer}.safetensors" for layer in range(n_layers)]
    values = {
        "model_kind": "transcoder_set",
        "feature_input_hook": "ln2.hook_normalized",
        "feature_output_hook": "hook_mlp_out",
        "transcoders": names,
    }
    for meaning in ("scaled", "affine", None):
        said = {} if meaning is None else {"ln2_hook_normalized": meaning}
        (tmp_path / "config.yaml").write_text(yaml.safe_dump(values | said))
        loaded = load_transcoders(tmp_path).transcoders
        assert loaded.expected_l0 == L0
        notes = Notes()
        graph = attribute(
            list(PROMPT), ReplacementModel(whole.model, loaded), max_feature_nodes=4, progress=notes
        )
        read = meaning or "scaled"
        assert graph.metadata["transcoders"]["ln2_hook_normalized"] == read
        doubted = [note for note in notes.said if "read as" in note and "closer" in note]
        assert bool(doubted) == (read != trained)
        if read == trained:
            count = graph.metadata["plausibility"]["active_per_position"]
            assert count == pytest.approx(L0, abs=0.05)
        if meaning is None:
            assert any(
                "to change this, set ln2_hook_normalized in config.yaml" in note for note in notes.said
            )
