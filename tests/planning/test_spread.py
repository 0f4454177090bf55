"""Peaks of several devices."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from circuit_tracer_cli.planning import Budget, Choices, DeviceBudget, TraceSizes, plan_memory
from circuit_tracer_cli.planning.free import UNKNOWN, WORK_OF_OTHERS, busy_work, memory_budget
from circuit_tracer_cli.planning.memory import PROGRAM, predict
from circuit_tracer_cli.planning.spread import device_peaks

GIB = 2**30
SIZES = TraceSizes(
    n_layers=26, d_model=2304, n_heads=8, n_kv_heads=4, d_head=256, d_mlp=9216, d_vocab=256_000, kind="clt",
    d_transcoder=16384, n_pos=64, model_params=2_600_000_000, encoder_bytes=26 * 16384 * 2304 * 4,
    decoder_bytes=27 * 13 * 16384 * 2304 * 4, max_feature_nodes=7500,
)  # fmt: skip
GPU = Choices(work=65536, on_gpu=True)


def devices(*counts: int, free: int = 80 * GIB) -> tuple[DeviceBudget, ...]:
    found, start = [], 0
    for number, count in enumerate(counts):
        found.append(DeviceBudget(f"cuda:{number}", free, tuple(range(start, start + count))))
        start += count
    return tuple(found)


def test_one_device_with_all_layers_needs_what_the_plan_without_a_map_says() -> None:
    (peak,) = device_peaks(SIZES, GPU, devices(26)).values()
    assert peak == pytest.approx(predict(SIZES, GPU).device_peak, rel=0.02)


def test_layers_take_their_share_along_and_late_ones_of_a_clt_are_written_to_more() -> None:
    peaks = device_peaks(SIZES, GPU, devices(13, 13))
    whole = device_peaks(SIZES, GPU, devices(26))["cuda:0"]
    assert all(0.3 * whole < peak < 0.8 * whole for peak in peaks.values())
    assert peaks["cuda:1"] > peaks["cuda:0"]
    plt = device_peaks(replace(SIZES, kind="plt"), GPU, devices(13, 13))
    assert plt["cuda:1"] < peaks["cuda:1"]


def test_every_device_must_have_room() -> None:
    peaks = device_peaks(SIZES, GPU, devices(13, 13))
    tight = Budget(900 * GIB, 1, devices(13, 13, free=max(peaks.values())))
    plan = plan_memory(SIZES, tight, lazy_encoder=False, lazy_decoder=True, offload="none")
    assert (plan.fits, plan.choices.work, plan.device_peaks) == (True, 65536, peaks)
    crowded = replace(tight, devices=(tight.devices[0], replace(tight.devices[1], free=peaks["cuda:1"] - 1)))
    changed = plan_memory(SIZES, crowded, lazy_encoder=False, lazy_decoder=True, offload="none")
    assert changed.choices.work < 65536 or not changed.fits
    assert plan_memory(SIZES, crowded).choices.lazy_decoder


def test_layers_on_the_cpu_count_for_the_host() -> None:
    shared = (
        DeviceBudget("cuda:0", 80 * GIB, tuple(range(13))),
        DeviceBudget("cpu", 900 * GIB, tuple(range(13, 26))),
    )
    plan = plan_memory(SIZES, Budget(900 * GIB, 80 * GIB, shared))
    alone = predict(SIZES, plan.choices).host_peak
    assert plan.host_peak == alone + plan.device_peaks["cpu"] - PROGRAM


def test_the_budget_is_what_is_free_on_each_device() -> None:
    def free(device: torch.device) -> int | None:
        return (1 + device.index) * GIB if device.type == "cuda" else None

    two = [torch.device("cuda", 0)] * 2 + [torch.device("cuda", 1)]
    budget = memory_budget(two, 9 * GIB, free)
    assert budget.devices == (DeviceBudget("cuda:0", GIB, (0, 1)), DeviceBudget("cuda:1", 2 * GIB, (2,)))
    assert budget.host == 9 * GIB
    full = memory_budget(two, 9 * GIB, lambda device: 0)
    assert [device.free for device in full.devices] == [0, 0]
    unknown = memory_budget(two, 9 * GIB, lambda device: None)
    assert [device.free for device in unknown.devices] == [UNKNOWN, UNKNOWN]
    assert memory_budget(two[:1], None, free) == Budget(UNKNOWN, GIB)
    assert memory_budget([torch.device("cpu")] * 2, 9 * GIB, free) == Budget(9 * GIB)


def test_the_gpu_of_a_mac_shares_the_memory_of_the_host() -> None:
    budget = memory_budget([torch.device("mps")] * 2, 9 * GIB, lambda device: 8 * GIB, busy_work)
    assert budget == Budget(9 * GIB, 8 * GIB, unified=True, busy_work=WORK_OF_OTHERS)


@pytest.mark.parametrize(("multiprocessors", "work"), [(132, 2**16), (28, 2**14), (16, 2**13)])
def test_blocks_suit_the_multiprocessors_of_a_gpu(
    monkeypatch: pytest.MonkeyPatch, multiprocessors: int, work: int
) -> None:
    facts = type("Facts", (), {"multi_processor_count": multiprocessors})
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: facts)
    assert busy_work(torch.device("cuda", 0)) == work
