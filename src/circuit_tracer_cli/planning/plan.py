"""Chooses the fastest way to run a trace that fits in memory."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

from circuit_tracer_cli.planning.memory import PROGRAM, SMALLEST_WORK, MemoryPlan, predict, usual_work
from circuit_tracer_cli.planning.sizes import Budget, Choices, TraceSizes
from circuit_tracer_cli.planning.spread import device_peaks


def plan_memory(
    sizes: TraceSizes,
    budget: Budget,
    *,
    lazy_encoder: bool | None = None,
    lazy_decoder: bool | None = None,
    offload: Literal["none", "cpu", "disk"] | None = None,
) -> MemoryPlan:
    """Return the fastest way to run a trace that fits in memory.

    In this order: the usual way with lazy decoders; on an accelerator, weights that are no longer needed move to host memory;
    lazy encoders; those weights move to disk; then smaller blocks in the engine. Choices that are given stay as they are. If
    nothing fits, the leanest plan is returned with `fits` False.

    Args:
        sizes: Sizes of the trace.
        budget: Available memory.
        lazy_encoder: True or False as requested; None to decide.
        lazy_decoder: The same.
        offload: Where to move weights that aren't in use; None to decide.
    """
    on_gpu = budget.device is not None
    start = Choices(work=usual_work(sizes, on_gpu, budget.busy_work), on_gpu=on_gpu)
    plan = None
    for choices in _ways(start, lazy_encoder, lazy_decoder, offload, budget.unified):
        plan = _spread(predict(sizes, choices, budget.host), sizes, budget)
        if _fits(plan, budget):
            return plan
    assert plan is not None
    return replace(plan, fits=False)


def _ways(
    start: Choices,
    lazy_encoder: bool | None,
    lazy_decoder: bool | None,
    offload: Literal["none", "cpu", "disk"] | None,
    unified: bool,
) -> list[Choices]:
    """Yield the ways to run a trace that agree with the request, from the fastest to the leanest."""
    # Lazy decoders cost almost nothing: rows are read once.
    start = replace(start, lazy_decoder=lazy_decoder is not False)
    order: list[tuple[bool, Literal["none", "cpu", "disk"]]] = [
        (False, "none"),
        (True, "none"),
        (True, "disk"),
    ]
    if start.on_gpu and not unified:  # where memory is one, nothing is gained by moving to the host's
        order = [(False, "none"), (False, "cpu"), (True, "cpu"), (True, "disk")]
    ways: list[Choices] = []
    for lazy, place in order:
        encoder = lazy if lazy_encoder is None else lazy_encoder
        way = replace(start, lazy_encoder=encoder, offload=place if offload is None else offload)
        if way not in ways:
            ways.append(way)
    work = start.work
    while (work := work // 2) >= SMALLEST_WORK:
        ways.append(replace(ways[-1], work=work))
    return ways


def _spread(plan: MemoryPlan, sizes: TraceSizes, budget: Budget) -> MemoryPlan:
    """Return the plan with a peak for each device, if there are several; layers on the CPU count for the host."""
    if not budget.devices:
        return plan
    peaks = device_peaks(sizes, plan.choices, budget.devices)
    host = plan.host_peak + (peaks["cpu"] - PROGRAM if "cpu" in peaks else 0)  # both include the program
    return replace(plan, device_peaks=peaks, device_peak=max(peaks.values()), host_peak=host)


def _fits(plan: MemoryPlan, budget: Budget) -> bool:
    if plan.host_peak > budget.host:
        return False
    if budget.unified and plan.host_peak + (plan.device_peak or 0) > budget.host:
        return False
    if budget.devices:
        return all(plan.device_peaks[device.name] <= device.free for device in budget.devices)
    return budget.device is None or plan.device_peak is None or plan.device_peak <= budget.device
