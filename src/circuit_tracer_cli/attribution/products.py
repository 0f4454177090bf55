"""The precision of the engine's matrix products, which is a choice of its own beside the dtype of model and transcoders.

`float32` is exact. `tf32` lets the tensor cores of an NVIDIA GPU round the factors to 11 bits. `bf16` rounds them to 8 bits: what
is fixed for a prompt (weights, patterns, source vectors) is kept so, in half the memory, cotangents only where they are
multiplied. Sums, the residual stream and the rows are float32 in all three.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor

from circuit_tracer_cli.errors import InvalidValue
from circuit_tracer_cli.types import PRECISIONS

AMPERE = 8
"""Compute capability from which NVIDIA GPUs have TF32."""


def check_precision(precision: str, devices: Sequence[torch.device]) -> None:
    """Raise InvalidValue for a precision that isn't known, or that a device doesn't have."""
    if precision not in PRECISIONS:
        raise InvalidValue(f"unknown precision {precision!r}", hint=f"choose one of {', '.join(PRECISIONS)}")
    for device in dict.fromkeys(devices) if precision == "tf32" else ():
        if device.type != "cuda" or torch.cuda.get_device_capability(device)[0] < AMPERE:
            raise InvalidValue(
                f"{device} has no TF32, which takes an NVIDIA GPU of the Ampere generation or later",
                hint="--precision float32, or bf16",
            )


def stored_as(precision: str, dtype: torch.dtype) -> torch.dtype:
    """The dtype of what is fixed for a prompt, in an engine of `dtype`."""
    return torch.bfloat16 if precision == "bf16" else dtype


@contextmanager
def tensor_cores(precision: str) -> Iterator[None]:
    """Let float32 products run in TF32 for a while, if that is the precision."""
    before = torch.backends.cuda.matmul.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = precision == "tf32"
    try:
        yield
    finally:
        torch.backends.cuda.matmul.allow_tf32 = before


def product(a: Tensor, b: Tensor, out: Tensor | None = None) -> Tensor:
    """`a @ b`, both of two or of three dimensions, in the dtype of the wider of them.

    If one is bfloat16, the other is rounded to it, and their products are summed in float32 or wider.
    """
    narrow = torch.bfloat16
    if narrow not in (a.dtype, b.dtype):
        return (torch.mm if a.dim() == 2 else torch.bmm)(a, b, out=out)
    wide = torch.promote_types(torch.promote_types(a.dtype, b.dtype), torch.float32)
    a, b = a.to(narrow), b.to(narrow)
    if a.device.type == "cuda":
        found = (torch.mm if a.dim() == 2 else torch.bmm)(a, b, out_dtype=torch.float32)
    else:
        found = a.to(torch.float32) @ b.to(torch.float32)
    return found.to(wide) if out is None else out.copy_(found)


def add_product(to: Tensor, a: Tensor, b: Tensor) -> None:
    """Add `a @ b`, of two dimensions, as `product` computes it."""
    if torch.bfloat16 in (a.dtype, b.dtype):
        to += product(a, b)
    else:
        to.addmm_(a, b)
