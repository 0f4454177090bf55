"""Layers on several devices: pretended ones, which refuse to meet, give the numbers of a single one."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.builders import FAMILIES, PROMPT, new_model, number_tokenizer, readable, replacement, transcoders
from tests.cases import some
from tests.pretended import DevicesMixed, PretendedTensor, pretended

from circuit_tracer_cli.attribution.attribute import attribute
from circuit_tracer_cli.backends import backend_class
from circuit_tracer_cli.backends.devices import Placement
from circuit_tracer_cli.backends.families import architecture_of
from circuit_tracer_cli.backends.loading import text_part
from circuit_tracer_cli.backends.placing import homes, module_map, place
from circuit_tracer_cli.errors import ModelMismatch
from circuit_tracer_cli.replacement import ReplacementModel
from circuit_tracer_cli.validation.subject import Subject

DEVICES = tuple(torch.device("cpu", index) for index in (1, 2, 3))
FAST = {"llama3": "nnsight", "gpt2": "transformerlens", "gemma3": "transformerlens", "gptj": "nnsight"}
"""A tied unembedding, learned positions, post norms with two rotary bases, one norm for both: on one backend each."""


def cases() -> list[Any]:
    """Every family on both backends, per layer and across layers in turn; those of `FAST` in the fast suite."""
    return [
        pytest.param(
            family,
            name,
            ("plt", "clt")[(number + turn) % 2],
            readable(family)[number % len(readable(family))],
            marks=[] if FAST.get(family) == name else [pytest.mark.long],
        )
        for number, family in enumerate(FAMILIES)
        for turn, name in enumerate(("transformerlens", "nnsight"))
    ]


@contextmanager
def spread(family: str, name: str, kind: str, read: str) -> Iterator[ReplacementModel]:
    """A tiny model with each of its three layers, and the transcoder of that layer, on a device of its own."""
    if name == "nnsight":
        pytest.importorskip("nnsight")
    with pretended():
        model = new_model(family)
        place(model, replacement(family, kind, read=read).model.shape.layout, Placement(DEVICES))
        backend = backend_class(name)(model, number_tokenizer(), f"tiny/{family}")
        assert backend.layer_devices == DEVICES
        yield ReplacementModel(backend, transcoders(kind, "jumprelu", True, read=read).place(DEVICES))


def whole(family: str, name: str, kind: str, read: str) -> ReplacementModel:
    return replacement(family, kind, "jumprelu", True, read=read, backend_name=name)


def close(got: torch.Tensor, want: torch.Tensor) -> None:
    got = got.cpu().to_dense() if got.layout is torch.sparse_coo else got.cpu()
    torch.testing.assert_close(got, want.to_dense() if want.is_sparse else want, atol=2e-5, rtol=2e-5)


@pytest.mark.parametrize(("family", "name", "kind", "read"), some(cases(), 2))
def test_a_spread_model_has_the_graph_of_a_whole_one(family: str, name: str, kind: str, read: str) -> None:
    want = attribute(list(PROMPT), whole(family, name, kind, read))
    with spread(family, name, kind, read) as model:
        for engine in ("closed-form", "vector-jacobian"):
            graph = attribute(list(PROMPT), model, engine=engine)
            assert graph.metadata["engine"] == engine
            assert torch.equal(graph.active_features, want.active_features)
            close(graph.adjacency_matrix, want.adjacency_matrix)
        assert graph.metadata["device"] == "0-0:cpu:1,1-1:cpu:2,2-2:cpu:3"


@pytest.mark.parametrize(("family", "name", "kind", "read"), some(cases(), 2))
def test_it_is_edited_and_continued_like_a_whole_one(family: str, name: str, kind: str, read: str) -> None:
    other = whole(family, name, kind, read)
    want = other.get_activations(list(PROMPT))
    active = want[1].nonzero()
    edits = [(*active[i].tolist(), 3.0) for i in (0, len(active) // 3, len(active) // 2, -1)]
    ways: list[dict[str, Any]] = [
        {},
        {"freeze_attention": False},
        {"constrained_layers": range(2)},
        {"constrained_layers": range(3)},
    ]
    settings = {"max_new_tokens": 3, "do_sample": False, "stop_at_eos": False}
    with spread(family, name, kind, read) as model:
        for got, expected in zip(model.get_activations(list(PROMPT)), want, strict=True):
            close(got, expected)
        for way in ways:
            for got, expected in zip(
                model.feature_intervention(list(PROMPT), edits, **way),
                other.feature_intervention(list(PROMPT), edits, **way),
                strict=True,
            ):
                close(got, expected)
        got = model.feature_intervention_generate(list(PROMPT), edits, **settings)
        expected = other.feature_intervention_generate(list(PROMPT), edits, **settings)
        assert got[0].tolist() == expected[0].tolist()
        close(got[1], expected[1])


def test_scripts_get_the_local_replacement_model_in_one_place() -> None:
    case = ("gemma2", "transformerlens", "clt", "hook_resid_mid")
    want = whole(*case).setup_attribution(list(PROMPT))
    with spread(*case) as model:
        got = model.setup_attribution(list(PROMPT))
        close(got.error_vectors, want.error_vectors)
        close(got.decoder_vecs, want.decoder_vecs)
        close(got.encoder_vecs, want.encoder_vecs)
        subject = Subject(attribute(list(PROMPT), model), model)
        assert subject.n_unknown == 0


def test_a_hidden_state_that_does_not_follow_is_noticed() -> None:
    """The check itself: without the hook at the second block's entrance nothing works."""
    with pretended():
        model = new_model("llama")
        place(model, replacement("llama", "plt").model.shape.layout, Placement(DEVICES))
        ids = torch.tensor([PROMPT]).to(DEVICES[0])
        assert isinstance(model(ids).logits, PretendedTensor)
        model.model.layers[1]._forward_pre_hooks.clear()
        with pytest.raises(DevicesMixed, match="cpu:1, cpu:2"):
            model(ids)


@functools.cache
def skeleton(family: str) -> tuple[Any, Any, Any]:
    """A class without weights, its language model, and where its parts are."""
    import transformers

    class_name, values = FAMILIES[family]
    config = getattr(transformers, class_name)(**values, bos_token_id=0, eos_token_id=1, pad_token_id=None)
    with torch.device("meta"):
        model: Any = transformers.AutoModelForCausalLM.from_config(config)
    return model, text_part(model), architecture_of({"architectures": [type(model).__name__]}).layout


@pytest.mark.parametrize("family", FAMILIES)
def test_hugging_faces_loader_is_told_about_every_weight_once(family: str) -> None:
    model, text, layout = skeleton(family)
    named = module_map(model, text, layout, Placement(DEVICES))
    home = homes(text, layout, Placement(DEVICES))
    for name, _ in model.named_parameters():
        assert sum(name == key or name.startswith(f"{key}.") for key in named) == 1, name
    assert [named[name] for name, module in model.named_modules() if module in home] == [
        home[module] for module in model.modules() if module in home
    ]
    assert home[text.get_submodule(layout.ln_final)] == DEVICES[-1]


def test_a_map_for_another_depth_is_refused() -> None:
    model, text, layout = skeleton("llama")
    with pytest.raises(ModelMismatch, match="the device map is for 2 layers, but the model has 3"):
        module_map(model, text, layout, Placement(DEVICES[:2]))


def test_a_folder_is_loaded_onto_several_devices(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Through the loader: at once where its hooks are replaced by ours, or first on the CPU."""
    model = new_model("gemma3")
    model.save_pretrained(tmp_path)
    number_tokenizer().save_pretrained(tmp_path)
    want = attribute(list(PROMPT), replacement("gemma3", "clt"))
    for at_once in (False, True):
        if at_once:
            names = module_map(
                *skeleton("gemma3")[:2], skeleton("gemma3")[2], Placement((torch.device("cpu"),) * 3)
            )
            monkeypatch.setattr(
                "circuit_tracer_cli.backends.loading.direct_map", lambda *_, names=names: names
            )
        loaded = ReplacementModel.from_pretrained_and_transcoders(
            str(tmp_path), transcoders("clt"), device_map={"0-1": "cpu", "2": "cpu"}
        )
        assert not hasattr(loaded.model.hf_model, "hf_device_map")
        close(attribute(list(PROMPT), loaded).adjacency_matrix, want.adjacency_matrix)
