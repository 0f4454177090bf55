"""Rows on their way to whoever uses them, the host or a stream of their own: while the device computes the next block.

That only helps if starting a block doesn't wait for the previous one: indices go to the device by `sent_to_device`, never by a
plain copy, for which torch waits until the device has finished everything else.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class OnTheWay:
    """Rows that are, or soon will be, where they are wanted, in float32.

    Args:
        wait: Returns the rows once they have arrived. Called once.
        ready: True if there is nothing to wait for.
    """

    wait: Callable[[], Tensor]
    ready: bool


def sent_to_device(indices: Tensor, device: torch.device) -> Tensor:
    """Return host indices on a device, queued behind its computations without waiting for them."""
    if device.type != "cuda" or indices.device.type != "cpu":
        return indices.to(device)
    try:
        pinned = indices.pin_memory()
    except RuntimeError:  # none is left
        return indices.to(device)
    return pinned.to(device, non_blocking=True)


def sent_to_host(rows: Tensor) -> OnTheWay:
    """Start copying rows to the host. On CUDA this overlaps with the next computation; elsewhere it is done at once."""
    if rows.device.type != "cuda":
        there = rows.to("cpu", torch.float32)
        return OnTheWay(lambda: there, True)
    rows = rows.to(torch.float32)
    buffer = _pinned(rows.numel())
    if buffer is None:
        there = rows.to("cpu")
        return OnTheWay(lambda: there, True)
    pinned = buffer[: rows.numel()].view(rows.shape)
    stream = _copying(rows.device)
    stream.wait_stream(torch.cuda.current_stream(rows.device))
    with torch.cuda.stream(stream):
        pinned.copy_(rows, non_blocking=True)
        rows.record_stream(stream)
        copied = stream.record_event()

    def wait() -> Tensor:
        copied.synchronize()
        there = pinned.clone()
        _buffers.append(buffer)
        return there

    return OnTheWay(wait, False)


def keeps_rows(device: torch.device) -> bool:
    """Return whether rows stay on a device, where they are summed, ranked and packed; from others they go to the host."""
    return device.type == "cuda"


def left_there(rows: Tensor) -> OnTheWay:
    """Return rows in float32 that stay where they are, for work `beside` what the device computes next."""
    rows = rows.to(torch.float32)
    if rows.device.type != "cuda":
        return OnTheWay(lambda: rows, False)
    computed = torch.cuda.current_stream(rows.device).record_event()

    def wait() -> Tensor:
        stream = _copying(rows.device)
        stream.wait_event(computed)
        rows.record_stream(stream)
        return rows

    return OnTheWay(wait, False)


@contextmanager
def beside(device: torch.device) -> Iterator[None]:
    """Work on a CUDA device in a stream of its own, so that waiting for it isn't waiting for the next block."""
    if device.type != "cuda":
        yield
        return
    with torch.cuda.stream(_copying(device)):
        yield


_buffers: list[Tensor] = []
"""Pinned memory that isn't in use: scarce, slow to get, and as large as the blocks before."""


def _pinned(count: int) -> Tensor | None:
    """Room for `count` numbers in pinned memory; None where the system has no more of it."""
    buffer = _buffers.pop() if _buffers else None
    if buffer is not None and len(buffer) >= count:
        return buffer
    del buffer
    try:
        return torch.empty(count, dtype=torch.float32, pin_memory=True)
    except RuntimeError:
        return None


_streams: dict[torch.device, torch.cuda.Stream] = {}


def _copying(device: torch.device) -> torch.cuda.Stream:
    """Return the stream on which a device's rows are copied."""
    if device not in _streams:
        _streams[device] = torch.cuda.Stream(device)
    return _streams[device]


def arrived(blocks: Iterator[tuple[T, OnTheWay]]) -> Iterator[tuple[T, Tensor]]:
    """Yield the blocks in order with their rows; a block is waited for only after the next one has started."""
    behind: tuple[T, OnTheWay] | None = None
    for block in blocks:
        if behind is not None:
            yield behind[0], behind[1].wait()
        behind = None if block[1].ready else block
        if behind is None:
            yield block[0], block[1].wait()
    if behind is not None:
        yield behind[0], behind[1].wait()
