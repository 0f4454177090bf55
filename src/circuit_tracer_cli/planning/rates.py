"""How fast this machine multiplies and copies, measured in a tenth of a second."""

from __future__ import annotations

import time
from collections.abc import Callable

from circuit_tracer_cli.planning.work import Rates

_SIZE = 1024
_REPEATS = 4


def measure_rates(device: str = "cpu") -> Rates:
    """Return the best rates of a few float32 products and copies on a torch device."""
    import torch

    a, b = torch.randn(_SIZE, _SIZE, device=device), torch.randn(_SIZE, _SIZE, device=device)
    copied = torch.empty(8 * _SIZE * _SIZE, device=device)
    target = torch.empty_like(copied)

    def finished() -> None:
        if torch.device(device).type == "cuda":
            torch.cuda.synchronize(device)

    product = _best(lambda: torch.mm(a, b), finished)
    copy = _best(lambda: target.copy_(copied), finished)
    return Rates(flops=2 * _SIZE**3 / product, bytes=copied.numel() * copied.element_size() / copy)


def _best(work: Callable[[], object], finished: Callable[[], None]) -> float:
    """Return the seconds of the fastest of several runs."""
    best = float("inf")
    for _ in range(_REPEATS):
        start = time.perf_counter()
        work()
        finished()
        best = min(best, time.perf_counter() - start)
    return best
