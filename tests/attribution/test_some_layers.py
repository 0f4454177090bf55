"""Transcoders for some layers only: elsewhere the whole output of the MLP is an error node, and rows stay exact."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from tests.attribution.test_exactness import check_sums, relative_error, some_targets, traced
from tests.builders import BACKEND_NAMES, PROMPT, replacement
from tests.oracle.replay import oracle_row, written

from circuit_tracer_cli.attribution.attribute import attribute
from circuit_tracer_cli.errors import BadIntervention, ModelMismatch
from circuit_tracer_cli.replacement import ReplacementModel
from circuit_tracer_cli.transcoders.loading import inspect_transcoders, load_transcoders
from circuit_tracer_cli.types import SilentProgress


class Notes(SilentProgress):
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def note(self, message: str) -> None:
        self.said.append(message)


def partial(
    folder: Path, kept: tuple[int, ...], backend_name: str = "transformerlens", **config: Any
) -> ReplacementModel:
    """A Llama model whose set lies in files for the layers `kept` alone."""
    whole = replacement("llama", "plt", "jumprelu", skip=True, backend_name=backend_name)
    whole.transcoders.to_safetensors(folder)
    for path in folder.glob("layer_*.safetensors"):
        if int(path.stem.removeprefix("layer_")) not in kept:
            path.unlink()
    values = {
        "model_kind": "transcoder_set",
        "feature_input_hook": whole.feature_input_hook,
        "feature_output_hook": whole.feature_output_hook,
    }
    (folder / "config.yaml").write_text(yaml.safe_dump(values | config))
    return ReplacementModel(whole.model, load_transcoders(folder, dtype=torch.float32).transcoders)


@pytest.mark.parametrize("backend_name", BACKEND_NAMES)
@pytest.mark.parametrize("kept", [(0,), (1,), (2,), (0, 2)])
def test_rows_equal_autograd_and_the_error_is_the_whole_output(
    kept: tuple[int, ...], backend_name: str, tmp_path: Path
) -> None:
    model = partial(tmp_path, kept, backend_name)
    n_layers = model.cfg.n_layers
    missing = tuple(sorted(set(range(n_layers)) - set(kept)))
    assert model.transcoders.missing_layers == missing
    replay, active, errors, engine = traced(model)
    assert set(active.indices[:, 0].tolist()) == set(kept)
    for layer in missing:
        output = replay.frozen.layers[layer].feature_output.double().clone()
        output[0] = 0  # the position that isn't traced
        assert torch.equal(errors[layer], output)
    targets = some_targets(model, active, len(PROMPT))
    nodes = engine.columns.nodes()
    rows = torch.zeros(len(targets), engine.columns.width, dtype=torch.float64)
    rows[:, nodes] = engine.rows(targets)
    added = written(model, active)
    want = torch.stack(
        [
            oracle_row(replay, layer, pos, vector, added, len(active), errors)
            for layer, pos, vector in zip(
                targets.layers.tolist(), targets.positions.tolist(), targets.vectors, strict=True
            )
        ]
    )
    assert relative_error(rows, want) < 1e-10
    check_sums(model, replay, added, errors, targets, rows)


def test_a_graph_says_which_layers_have_no_transcoder(tmp_path: Path) -> None:
    model, notes = partial(tmp_path, (1,)), Notes()
    graph = attribute(list(PROMPT), model, progress=notes)
    n_layers = model.cfg.n_layers
    assert any(f"transcoders for 1 of {n_layers} layers; in layers 0, 2" in said for said in notes.said)
    assert graph.metadata["transcoders"]["layers_without"] == [0, *range(2, n_layers)]
    assert not any("reconstruct little" in said and "layers 0" in said for said in notes.said)
    with pytest.raises(BadIntervention, match="layer 0 can't be edited: the set has no transcoder for it"):
        model.feature_intervention(list(PROMPT), [(0, 1, 0, 1.0)])


def test_listed_files_say_their_layers(tmp_path: Path) -> None:
    model = partial(
        tmp_path, (0, 2), transcoders=["layer_0.safetensors", "layer_2.safetensors"], layers=[0, 2]
    )
    assert model.transcoders.missing_layers == (1, *range(3, model.cfg.n_layers))
    shape = inspect_transcoders(tmp_path).shape
    assert (shape.layers, shape.activations) == ((0, 2), ("jumprelu", "none", "jumprelu"))


def test_a_set_for_more_layers_than_the_model_is_refused(tmp_path: Path) -> None:
    model = partial(tmp_path, (0,))
    (tmp_path / "layer_0.safetensors").rename(tmp_path / f"layer_{model.cfg.n_layers}.safetensors")
    with pytest.raises(ModelMismatch, match=f"the model has n_layers {model.cfg.n_layers}"):
        ReplacementModel(model.model, load_transcoders(tmp_path).transcoders)
