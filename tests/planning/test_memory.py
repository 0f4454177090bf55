"""The plan's arithmetic: what grows with what, and which way a trace is run."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from circuit_tracer_cli.planning import Budget, Choices, Rates, TraceSizes, plan_memory, plan_time
from circuit_tracer_cli.planning.memory import SMALLEST_WORK, predict

GIB = 2**30
GEMMA = TraceSizes(
    n_layers=26, d_model=2304, n_heads=8, n_kv_heads=4, d_head=256, d_mlp=9216, d_vocab=256_000, kind="plt",
    d_transcoder=16_384, n_pos=64, max_feature_nodes=8192, model_params=2_600_000_000, dtype_bytes=2,
    encoder_bytes=26 * 16_384 * 2304 * 2, decoder_bytes=26 * 16_384 * 2304 * 2,
)  # fmt: skip
ROOMY = Budget(host=10**15)


def test_sizes() -> None:
    assert GEMMA.active == 50 * 26 * 63
    assert GEMMA.features == 8192
    assert replace(GEMMA, max_feature_nodes=0).features == GEMMA.active
    assert GEMMA.decoder_entries == GEMMA.active
    assert replace(GEMMA, kind="clt").decoder_entries == round(GEMMA.active * 13.5)
    assert GEMMA.nodes == 8192 + 27 * 64 + 10


def test_with_room_nothing_is_given_up() -> None:
    plan = plan_memory(GEMMA, ROOMY)
    assert plan.fits
    assert plan.choices == Choices(work=4096, lazy_encoder=False, lazy_decoder=True)
    assert plan.host_peak == max(plan.phases.values())
    assert plan.host_peak > 2 * GEMMA.model_params + GEMMA.encoder_bytes


def test_encoders_stay_on_disk_where_they_do_not_fit() -> None:
    few = replace(GEMMA, max_feature_nodes=500)
    usual = plan_memory(few, ROOMY)
    lean = plan_memory(few, Budget(host=usual.host_peak - GIB))
    assert lean.fits
    assert lean.choices.lazy_encoder
    assert lean.host_peak < usual.host_peak - GIB


def test_blocks_shrink_next_and_the_leanest_way_is_told_not_to_fit() -> None:
    lazy = predict(GEMMA, Choices(work=4096, lazy_encoder=True))
    halved = plan_memory(GEMMA, Budget(host=lazy.host_peak - 1))
    assert halved.choices.lazy_encoder
    leanest = plan_memory(GEMMA, Budget(host=GIB))
    assert not leanest.fits
    assert leanest.choices.work == SMALLEST_WORK


@pytest.mark.parametrize("asked", [True, False])
def test_what_is_asked_for_stays(asked: bool) -> None:
    for host in (10**15, GIB):
        plan = plan_memory(GEMMA, Budget(host=host), lazy_encoder=asked, lazy_decoder=asked)
        assert plan.choices.lazy_encoder is asked
        assert plan.choices.lazy_decoder is asked


def test_a_gpu_holds_the_weights_and_the_host_the_rows() -> None:
    plan = plan_memory(GEMMA, Budget(host=64 * GIB, device=80 * GIB))
    assert plan.fits
    assert plan.device_peak is not None
    assert plan.device_peak > 2 * GEMMA.model_params
    assert plan.choices.on_gpu
    long = replace(GEMMA, n_pos=2048)
    assert plan_memory(long, Budget(host=64 * GIB, device=80 * GIB)).host_peak > plan.host_peak


@given(
    st.integers(2, 4096),
    st.floats(0.5, 200),
    st.sampled_from(["plt", "clt"]),
    st.booleans(),
    st.integers(0, 10_000),
)
def test_more_of_anything_never_needs_less(
    n_pos: int, active: float, kind: str, lazy: bool, nodes: int
) -> None:
    sizes = replace(GEMMA, n_pos=n_pos, active_per_position=active, kind=kind, max_feature_nodes=nodes)
    choices = Choices(work=4096, lazy_encoder=lazy)
    peak = predict(sizes, choices).host_peak
    assert peak > 0
    for more in (
        replace(sizes, n_pos=n_pos + 256),
        replace(sizes, active_per_position=active * 2),
        replace(sizes, n_layers=52),
    ):
        assert predict(more, choices).host_peak >= peak * 0.99


def test_time_goes_with_the_work() -> None:
    rates = Rates(flops=1e11, bytes=1e10)
    seconds = plan_time(GEMMA, Choices(work=4096), rates)
    assert set(seconds) >= {"loading", "forward pass", "rows"}
    assert all(value >= 0 for value in seconds.values())
    twice = plan_time(GEMMA, Choices(work=4096), Rates(flops=2e11, bytes=1e10))
    assert twice["rows"] == pytest.approx(seconds["rows"] / 2)
    longer = plan_time(replace(GEMMA, n_pos=128), Choices(work=4096), rates)
    assert longer["rows"] > 1.9 * seconds["rows"]


def test_an_accelerator_sends_what_it_no_longer_needs_to_the_host_first() -> None:
    usual = plan_memory(GEMMA, Budget(host=10**15, device=10**15))
    assert usual.choices.offload == "none"
    assert usual.device_peak is not None
    tight = plan_memory(GEMMA, Budget(host=10**15, device=usual.device_peak - 1))
    assert (tight.choices.offload, tight.choices.lazy_encoder) == ("cpu", False)
    assert tight.device_peak is not None
    assert tight.device_peak < usual.device_peak
    assert tight.host_peak > usual.host_peak
    narrow = plan_memory(GEMMA, Budget(host=usual.host_peak, device=usual.device_peak - 1))
    assert narrow.choices.lazy_encoder


def test_the_host_sends_it_to_the_disk_when_lazy_weights_are_not_enough() -> None:
    rows = replace(GEMMA, n_pos=512, max_feature_nodes=500)
    lazy = predict(rows, Choices(work=4096, lazy_encoder=True))
    plan = plan_memory(rows, Budget(host=lazy.host_peak - 1))
    assert (plan.choices.lazy_encoder, plan.choices.offload) == (True, "disk")
    assert plan.fits
    assert plan.phases["forward pass"] == lazy.phases["forward pass"]
    assert plan.host_peak < lazy.host_peak


@pytest.mark.parametrize("offload", ["none", "cpu", "disk"])
@pytest.mark.parametrize("device", [None, 10**15, GIB])
def test_an_offload_that_is_asked_for_stays(
    offload: Literal["none", "cpu", "disk"], device: int | None
) -> None:
    plan = plan_memory(GEMMA, Budget(host=10**15, device=device), offload=offload)
    assert plan.choices.offload == offload


def test_without_a_closed_form_the_model_stays() -> None:
    by_gradients = replace(GEMMA, closed_form=False)
    assert by_gradients.resting_bytes == 0
    assert 0 < GEMMA.resting_bytes < 2 * GEMMA.model_params
    on_disk = Choices(work=4096, offload="disk")
    assert predict(by_gradients, on_disk).phases["rows"] > predict(GEMMA, on_disk).phases["rows"]


def test_rows_beyond_a_third_of_the_free_memory_are_planned_as_files() -> None:
    """A 2,048-token prompt with 8,192 feature nodes fits 80 GB of device memory and 64 GB of host memory."""
    long = replace(GEMMA, n_pos=2048, active_per_position=45)
    plan = plan_memory(long, Budget(host=64 * 10**9, device=80 * 10**9))
    assert plan.fits
    assert plan.choices.offload == "none"
    assert plan.held["rows"] > 30 * GIB
    assert plan.scratch >= plan.held["rows"] - 64 * 10**9 // 3
    assert plan.host_peak < 64 * 10**9 // 3 + 3 * GIB
    roomy = predict(long, plan.choices)
    assert roomy.scratch == 0
    assert roomy.host_peak > plan.host_peak
    assert roomy.device_peak == plan.device_peak


def test_on_a_cpu_the_rows_leave_room_for_what_is_held_already() -> None:
    long = replace(GEMMA, n_pos=512, max_feature_nodes=8192)
    free = 24 * GIB
    plan = predict(long, Choices(work=4096, lazy_encoder=True), free)
    everything = predict(long, Choices(work=4096, lazy_encoder=True))
    assert plan.scratch > 0
    assert plan.host_peak + plan.scratch >= everything.host_peak
    held = plan.held["model"] + plan.held["forward pass"] + plan.held["source vectors"]
    assert plan.host_peak - held < free


def test_a_cast_holds_one_weight_in_both_types() -> None:
    """The embedding, the largest, as its file has it: 256,000 x 2,304 float32 numbers."""
    cast = plan_memory(replace(GEMMA, stored_bytes=4), ROOMY)
    same = plan_memory(replace(GEMMA, stored_bytes=2), ROOMY)
    assert cast.phases["loading"] - same.phases["loading"] == 256_000 * 2304 * 4


def test_memory_that_host_and_device_share_is_counted_once() -> None:
    roomy = plan_memory(GEMMA, Budget(host=10**15, device=10**15, unified=True))
    assert roomy.device_peak is not None
    both = roomy.host_peak + roomy.device_peak
    assert plan_memory(GEMMA, Budget(host=both, device=both, unified=True)).choices == roomy.choices
    tight = plan_memory(GEMMA, Budget(host=both - 1, device=both, unified=True))
    assert tight.choices != roomy.choices
    assert tight.choices.offload != "cpu"  # the host's memory is the device's


def test_blocks_are_as_large_as_keeps_the_device_busy() -> None:
    few = plan_memory(GEMMA, Budget(host=10**15, device=10**15, busy_work=2**14))
    many = plan_memory(GEMMA, Budget(host=10**15, device=10**15, busy_work=2**17))
    assert (few.choices.work, many.choices.work) == (2**14, 2**17)
    assert few.phases["rows"] < many.phases["rows"]


def test_the_targets_are_a_phase_of_their_own() -> None:
    phases = list(plan_memory(GEMMA, ROOMY).phases)
    assert phases[:3] == ["loading", "forward pass", "targets"]
