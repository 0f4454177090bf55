"""Settings of a set are used, harmless or refused by name, in every format: none is dropped without a word."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from tests.transcoders.conftest import RandomSet
from tests.transcoders.layouts import LAYOUTS, write

from circuit_tracer_cli.errors import BadTranscoders
from circuit_tracer_cli.transcoders import training_config
from circuit_tracer_cli.transcoders.config import KEYS
from circuit_tracer_cli.transcoders.loading import inspect_transcoders, load_transcoders
from circuit_tracer_cli.transcoders.settings import COMPUTING, Vocabulary

ON: dict[str, Any] = {
    "activation_fn": "topk",
    "activation_fn_kwargs": {"k": 3},
    "activation_fn_str": "topk",
    "activation_function": "topk",
    "act_fn": "gelu",
    "apply_b_dec_to_input": True,
    "center_input": True,
    "center_unembed": True,
    "center_writing_weights": True,
    "embed_skip": True,
    "finetuning_scaling_factor": True,
    "fold_ln": True,
    "gram_lookup": True,
    "hook_head_index": 3,
    "hook_head_index_out": 0,
    "input_norm_factor": 3.0,
    "input_scale": 2,
    "layer_norm_input": True,
    "normalize_activations": "expected_average_only_in",
    "normalize_input": "layer_norm",
    "output_norm_factor": 0.5,
    "output_scale": 0.0,
    "rescale_acts_by_decoder_norm": True,
    "reshape_activations": "hook_z",
    "scaling_factor": 1.5,
    "signed": True,
}
"""A value of each setting that changes the computation."""


def place_in_yaml(layout: str, folder: Path, **changes: Any) -> Path:
    """Write a set in a layout, with settings in its hand-written config.yaml."""
    if layout.startswith("standard"):
        tiny = RandomSet(layout.removeprefix("standard-"), "relu")
        tiny.write(folder)
        config = tiny.config()
    else:
        kind, activation, _ = LAYOUTS[layout]
        tiny = RandomSet(kind, activation)
        write(tiny, layout, folder)
        config = tiny.config()
        if layout in {"saelens", "sparsify"}:
            names = sorted(path.relative_to(folder).as_posix() for path in folder.glob("*/*.safetensors"))
            config |= {"transcoders": names}
            config |= {"activation": "topk_relu", "k": tiny.k} if layout == "sparsify" else {}
        else:
            config = yaml.safe_load((folder / "config.yaml").read_text())
    (folder / "config.yaml").write_text(yaml.safe_dump(config | changes))
    return folder


FORMATS = ["standard-plt", "standard-clt", *LAYOUTS]


@pytest.mark.parametrize("layout", FORMATS)
def test_every_format_loads_with_its_settings_switched_off(layout: str, tmp_path: Path) -> None:
    off = {key: values[-1] for key, values in COMPUTING.items()}
    assert load_transcoders(place_in_yaml(layout, tmp_path / "set", **off)).transcoders.n_layers == 3


@pytest.mark.parametrize("key", sorted(COMPUTING))
def test_a_setting_that_changes_the_computation_is_refused_by_name(key: str, tmp_path: Path) -> None:
    for layout in FORMATS:
        folder = place_in_yaml(layout, tmp_path / layout, **{key: ON[key]})
        with pytest.raises(BadTranscoders, match=f"sets {key}: "):
            inspect_transcoders(folder)


@pytest.mark.parametrize("layout", [name for name in FORMATS if name != "sparsify"])
def test_k_without_an_activation_that_uses_it_is_refused(layout: str, tmp_path: Path) -> None:
    with pytest.raises(BadTranscoders, match="sets k: 4, but no activation that uses it"):
        inspect_transcoders(place_in_yaml(layout, tmp_path / "set", k=4))


@pytest.mark.parametrize("layout", FORMATS)
@pytest.mark.parametrize(("key", "value"), [("d_model", 7), ("d_transcoder", 21), ("n_layers", 2)])
def test_stated_sizes_are_compared_with_the_files(layout: str, key: str, value: int, tmp_path: Path) -> None:
    with pytest.raises(BadTranscoders, match=f"says {key} {value}, but its files have"):
        inspect_transcoders(place_in_yaml(layout, tmp_path / "set", **{key: value}))


def cfg(layout: str, folder: Path) -> Path:
    """The trainer's own file of layer 1."""
    return folder / {"saelens": "layer_1", "sparsify": "layers.1.mlp"}[layout] / "cfg.json"


@pytest.mark.parametrize("hand_written", [False, True])
@pytest.mark.parametrize("nested", [False, True])
@pytest.mark.parametrize("layout", ["saelens", "sparsify"])
def test_settings_of_a_trainer_count_under_a_hand_written_config_too(
    layout: str, hand_written: bool, nested: bool, tmp_path: Path
) -> None:
    """Also where SAELens puts them into its metadata."""
    for key in sorted(COMPUTING):
        folder = tmp_path / key
        place_in_yaml(layout, folder)
        if not hand_written:
            (folder / "config.yaml").unlink()
        path = cfg(layout, folder)
        values = json.loads(path.read_text())
        if nested and layout == "saelens":
            values.pop(key, None)
            values["metadata"][key] = ON[key]
        else:
            values[key] = ON[key]
        path.write_text(json.dumps(values))
        with pytest.raises(BadTranscoders, match=f"cfg.json sets {key}: "):
            inspect_transcoders(folder)


def test_how_the_model_was_processed_for_saelens(tmp_path: Path) -> None:
    folder = write(RandomSet("plt", "jumprelu"), "saelens", tmp_path / "set")

    def processed(**kwargs: Any) -> None:
        for path in folder.glob("*/cfg.json"):
            values = json.loads(path.read_text())
            values["metadata"]["model_from_pretrained_kwargs"] = kwargs
            path.write_text(json.dumps(values))

    processed(center_writing_weights=False, fold_ln=True)
    assert inspect_transcoders(folder).config.feature_input_hook == "ln2.hook_normalized"
    processed(center_writing_weights=True)
    with pytest.raises(BadTranscoders, match="sets center_writing_weights: true"):
        inspect_transcoders(folder)
    processed(n_ctx=3)
    with pytest.raises(BadTranscoders, match="unknown key n_ctx"):
        inspect_transcoders(folder)
    processed(fold_ln=True)
    for path in folder.glob("*/cfg.json"):
        path.write_text(path.read_text().replace("ln2.hook_normalized", "mlp.hook_in"))
    with pytest.raises(
        BadTranscoders, match=r"trained with fold_ln, where mlp\.hook_in is before the norm's gain"
    ):
        inspect_transcoders(folder)


@pytest.mark.parametrize(
    ("model", "hook"), [("google/gemma-3-1b-pt", "mlp.hook_in"), ("gpt2", None)], ids=["gemma 3", "another"]
)
def test_hook_mlp_in_is_read_where_its_meaning_is_known(model: str, hook: str | None, tmp_path: Path) -> None:
    folder = write(RandomSet("plt", "jumprelu"), "saelens", tmp_path / "set")
    for path in folder.glob("*/cfg.json"):
        text = path.read_text().replace("ln2.hook_normalized", "hook_mlp_in").replace('"tiny"', f'"{model}"')
        path.write_text(text)
    if hook is not None:
        assert inspect_transcoders(folder).config.feature_input_hook == hook
        return
    with pytest.raises(BadTranscoders, match="hook_mlp_in is the residual stream before the norm"):
        inspect_transcoders(folder)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_an_unknown_tensor_is_refused_by_name(layout: str, tmp_path: Path) -> None:
    if layout == "gemma-scope":
        return  # test_published_layouts writes npz files with changed arrays
    folder = place_in_yaml(layout, tmp_path / "set")
    path = sorted(folder.rglob("*.safetensors"))[1]
    save_file(load_file(path) | {"input_mean": torch.zeros(6)}, path)
    with pytest.raises(BadTranscoders, match="unknown tensor 'input_mean'"):
        inspect_transcoders(folder)


def test_a_stored_k_must_be_used_and_agree(tmp_path: Path) -> None:
    folder = RandomSet("plt", "jumprelu").write(tmp_path / "a")
    path = folder / "layer_1.safetensors"
    save_file(load_file(path) | {"k": torch.tensor(4)}, path)
    with pytest.raises(BadTranscoders, match="has k, but the activation is jumprelu"):
        inspect_transcoders(folder)
    folder = RandomSet("plt", "topk").write(tmp_path / "b")
    path = folder / "layer_1.safetensors"
    save_file(load_file(path) | {"k": torch.tensor(5)}, path)
    with pytest.raises(BadTranscoders, match=r"has k = 5, but config\.yaml says k: 4"):
        inspect_transcoders(folder)


@pytest.mark.parametrize("link", [Path.symlink_to, Path.hardlink_to])
def test_one_file_for_two_layers_is_refused(link: Callable[[Path, Path], None], tmp_path: Path) -> None:
    folder = RandomSet("plt", "relu").write(tmp_path / "set")
    config = yaml.safe_load((folder / "config.yaml").read_text())
    for names in (
        ["layer_0.safetensors", "./layer_0.safetensors"],
        ["layer_1.safetensors", "copy.safetensors"],
    ):
        if names[1] == "copy.safetensors":
            link(folder / "copy.safetensors", folder / "layer_1.safetensors")
        (folder / "config.yaml").write_text(yaml.safe_dump(config | {"transcoders": names}))
        with pytest.raises(BadTranscoders, match="the same file, listed for two layers"):
            inspect_transcoders(folder)


def test_what_sparsify_says_of_a_skip_must_agree(tmp_path: Path) -> None:
    folder = write(RandomSet("plt", "topk_relu", (1,)), "sparsify", tmp_path / "set")
    path = cfg("sparsify", folder)
    path.write_text(path.read_text().replace('"skip_connection": true', '"skip_connection": false'))
    with pytest.raises(BadTranscoders, match="has 'W_skip', but its configuration says"):
        inspect_transcoders(folder)


values = st.none() | st.booleans() | st.integers(-3, 3) | st.floats(-2, 2) | st.text(max_size=6)
VOCABULARIES = {
    "config.yaml": KEYS,
    "SAELens": training_config._SAELENS,
    "sparsify": training_config._SPARSIFY,
    "how the model was loaded": training_config._MODEL_KWARGS,
    "GemmaScope 2": training_config._GEMMA_SCOPE_2,
}


@pytest.mark.parametrize("name", VOCABULARIES)
@settings(max_examples=60, derandomize=True)
@given(data=st.data())
def test_any_key_is_known_or_refused(name: str, data: st.DataObject) -> None:
    """For every format: a configuration passes only if each key is used, harmless or switched off."""
    known: Vocabulary = VOCABULARIES[name]
    keys = st.sampled_from(sorted({*known.used, *known.harmless, *known.switches})) | st.text(max_size=12)
    found = data.draw(st.dictionaries(keys, values, max_size=4))
    wrong = [
        key
        for key, value in found.items()
        if key not in known.used | known.harmless
        and not any(type(value) is type(off) and value == off for off in known.switches.get(key, ()))
    ]
    try:
        known.require(found, "here")
        said = ""
    except BadTranscoders as error:
        said = error.message
    assert bool(said) == bool(wrong)
    assert all(key in said for key in wrong)


@settings(max_examples=40, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(key=st.text(min_size=1, max_size=10, alphabet=st.characters(categories=["L", "N"])), value=values)
def test_no_format_passes_over_an_unknown_key(tmp_path: Path, key: str, value: Any) -> None:
    known = training_config._SAELENS
    if key in known.used | known.harmless | set(known.switches) | {"num_latents", "expansion_factor"}:
        return
    folder = tmp_path / "set"
    if not folder.exists():
        place_in_yaml("saelens", folder)
    path, plain = cfg("saelens", folder), json.loads(cfg("saelens", folder).read_text())
    path.write_text(json.dumps(plain | {key: value}))
    try:
        with pytest.raises(BadTranscoders, match="unknown key"):
            inspect_transcoders(folder)
    finally:
        path.write_text(json.dumps(plain))


def test_a_wrong_number_is_refused_on_load_whichever_feature_is_read(tmp_path: Path) -> None:
    for layout in FORMATS:
        folder = place_in_yaml(layout, tmp_path / layout)
        if layout == "gemma-scope":
            continue
        path = next(path for path in sorted(folder.rglob("*.safetensors")) if "W_enc" not in path.name)
        tensors = load_file(path)
        name = next(name for name in tensors if name.lower().startswith("w_dec"))
        tensors[name].view(-1)[-1] = torch.nan
        save_file(tensors, path)
        for dtype in (torch.float32, torch.float16):
            with pytest.raises(BadTranscoders, match=f"'{name}' contains NaN or infinite values") as caught:
                load_transcoders(folder, dtype=dtype)
            assert "float16" not in (caught.value.hint or "")


def test_weights_too_large_for_float16_are_told_from_damaged_ones(tmp_path: Path) -> None:
    folder = RandomSet("plt", "relu").write(tmp_path)
    path = folder / "layer_1.safetensors"
    tensors = load_file(path)
    tensors["W_dec"][3, 2] = 1e6
    save_file(tensors, path)
    load_transcoders(folder)
    with pytest.raises(BadTranscoders, match="contains values too large for float16") as caught:
        load_transcoders(folder, dtype=torch.float16)
    assert "bfloat16" in (caught.value.hint or "")


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"sae_type": "lorsa"}, "describes a Lorsa, a dictionary for an attention layer"),
        (
            {"sae_type": "sae", "hook_point_in": "blocks.0.hook_resid_post", "hook_point_out": "blocks.0.hook_resid_post"},
            r"sparse autoencoder \(SAE\), not a transcoder",
        ),
        (
            {"sae_type": "sae", "hook_point_in": "blocks.0.ln2.hook_normalized", "hook_point_out": "blocks.0.hook_mlp_out"},
            "of Language-Model-SAEs, which isn't supported yet",
        ),
    ],
)  # fmt: skip
def test_dictionaries_of_another_kind_are_named(values: dict[str, Any], said: str, tmp_path: Path) -> None:
    folder = tmp_path / "layer0"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(values))
    with pytest.raises(BadTranscoders, match=said):
        inspect_transcoders(tmp_path)
