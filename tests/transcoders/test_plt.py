from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch.testing import assert_close

from circuit_tracer_cli.errors import OutputError
from circuit_tracer_cli.transcoders.activations import TopK
from circuit_tracer_cli.transcoders.plt import SingleLayerTranscoder, TranscoderSet


def single(features: int = 5, width: int = 3, **extra: Any) -> SingleLayerTranscoder:
    generator = torch.Generator().manual_seed(features)
    return SingleLayerTranscoder.from_tensors(
        torch.randn(features, width, generator=generator),
        torch.randn(features, width, generator=generator),
        torch.randn(features, generator=generator),
        torch.randn(width, generator=generator),
        **extra,
    )


def test_the_skip_matrix_is_applied_transposed() -> None:
    W_skip = torch.arange(9.0).reshape(3, 3)
    x = torch.tensor([[1.0, 2.0, 3.0]])
    transcoder = single(W_skip=W_skip)
    assert torch.equal(transcoder.compute_skip(x), x @ W_skip.T)
    assert_close(transcoder.forward(x), single().forward(x) + x @ W_skip.T)


def test_decoding_with_a_skip_needs_the_input() -> None:
    transcoder = single(W_skip=torch.eye(3))
    with pytest.raises(ValueError, match="needs its input"):
        transcoder.decode(torch.zeros(1, 5))
    with pytest.raises(ValueError, match="needs the inputs"):
        TranscoderSet([transcoder], "in", "out").decode(torch.zeros(1, 1, 5))


def test_asking_for_a_skip_that_is_not_there_is_an_error() -> None:
    with pytest.raises(ValueError, match="no skip connection"):
        TranscoderSet([single()], "in", "out").compute_skip(0, torch.zeros(1, 3))


def test_inputs_are_cast_to_the_weights_dtype() -> None:
    transcoder = single()
    transcoder.to(torch.device("cpu"), torch.bfloat16)
    assert transcoder.encode(torch.ones(2, 3)).dtype is torch.bfloat16


def test_a_set_is_a_sequence_of_its_layers() -> None:
    layers = [single(), single()]
    transcoders = TranscoderSet(layers, "in", "out", scan="here")
    assert len(transcoders) == transcoders.n_layers == 2
    assert transcoders[1] is layers[1]
    assert list(transcoders) == layers
    assert transcoders.written_layers(1) == range(1, 2)
    assert transcoders.scan == "here"


@pytest.mark.parametrize(
    ("layers", "message"),
    [([], "at least one"), ([single(5), single(6)], r"layer 1 .*\(6, 3\).*\(5, 3\)")],
)
def test_a_set_refuses_layers_that_do_not_fit(layers: list[SingleLayerTranscoder], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        TranscoderSet(layers, "in", "out")


def test_a_cross_layer_decoder_is_refused(random_set: Callable[..., Any], tmp_path: Path) -> None:
    from circuit_tracer_cli.transcoders.loading import load_transcoders

    clt: Any = load_transcoders(random_set("clt", "relu").write(tmp_path)).transcoders
    with pytest.raises(ValueError, match=r"decoder of shape \(20, 3, 6\) instead of \(20, 1, 6\)"):
        TranscoderSet(list(clt), "in", "out")


def test_the_file_of_a_topk_transcoder_says_k(tmp_path: Path) -> None:
    single(activation=TopK(2)).to_safetensors(tmp_path / "new" / "layer_0.safetensors")
    assert int(load_file(tmp_path / "new" / "layer_0.safetensors")["k"]) == 2
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["layer_0.safetensors"]


def test_a_path_that_cannot_be_written_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="can't write"):
        single().to_safetensors(tmp_path / "file" / "layer_0.safetensors")
    (tmp_path / "folder.safetensors").mkdir()
    with pytest.raises(OutputError, match="can't write"):
        single().to_safetensors(tmp_path / "folder.safetensors")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "folder.safetensors"]


def test_a_set_can_be_saved_over_the_files_that_it_reads(
    random_set: Callable[..., Any], tmp_path: Path
) -> None:
    from circuit_tracer_cli.transcoders.loading import load_transcoders

    folder = random_set("plt", "relu").write(tmp_path)
    lazy: Any = load_transcoders(folder, lazy_encoder=True, lazy_decoder=True).transcoders
    before = lazy.encoder_rows(1, torch.arange(20))
    lazy.to_safetensors(folder)
    assert torch.equal(lazy.encoder_rows(1, torch.arange(20)), before)
    again: Any = load_transcoders(folder).transcoders
    assert torch.equal(again.encoder_rows(1, torch.arange(20)), before)
