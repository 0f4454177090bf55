from __future__ import annotations

import pytest
import torch
from torch.testing import assert_close

from circuit_tracer_cli.transcoders.clt import CrossLayerTranscoder

L, F, D = 3, 5, 4


def build(
    W_dec_slots: tuple[int, ...] = (3, 2, 1), W_skip: list[torch.Tensor | None] | None = None
) -> CrossLayerTranscoder:
    generator = torch.Generator().manual_seed(0)

    def draw(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator)

    return CrossLayerTranscoder.from_tensors(
        [draw(F, D) for _ in range(L)],
        [draw(F, slots, D) for slots in W_dec_slots],
        [draw(F) for _ in range(L)],
        [draw(D) for _ in range(L)],
        W_skip=W_skip,
    )


def test_a_layer_writes_to_itself_and_all_later_ones() -> None:
    clt = build()
    assert [clt.written_layers(layer) for layer in range(L)] == [range(0, 3), range(1, 3), range(2, 3)]
    assert clt.decoder_rows(1, torch.tensor([4, 2])).shape == (2, 2, D)
    assert (clt.feature_input_hook, clt.feature_output_hook) == ("hook_resid_mid", "hook_mlp_out")


def test_the_skip_matrix_is_applied_as_it_is_and_once() -> None:
    W_skip = torch.arange(16.0).reshape(D, D)
    x = torch.randn(L, 2, D, generator=torch.Generator().manual_seed(1))
    with_skip = build(W_skip=[None, W_skip, None])
    assert with_skip.has_skip
    assert [with_skip.skip_matrix(layer) is None for layer in range(L)] == [True, False, True]
    difference = with_skip.forward(x) - build().forward(x)
    assert_close(difference[1], x[1] @ W_skip, rtol=1e-5, atol=1e-4)
    assert difference[0].count_nonzero() == difference[2].count_nonzero() == 0


def test_a_decoder_that_writes_to_the_wrong_number_of_layers_is_refused() -> None:
    with pytest.raises(ValueError, match=r"layer 1 .*\(5, 3, 4\) instead of \(5, 2, 4\)"):
        build(W_dec_slots=(3, 3, 1))


def test_inputs_of_another_dtype_are_cast() -> None:
    assert build().to(dtype=torch.bfloat16).encode_layer(torch.ones(2, D), 1).dtype is torch.bfloat16
