"""Devices that aren't there: tensors with true numbers that say they lie on `cpu:1`, `cpu:2` … and refuse to meet.

A tensor on a pretended device wraps one on the CPU. Every operation under `pretended()` is checked as on a machine with GPUs:
operands on two devices are an error, only single numbers and index tensors from the plain CPU may come along. So whatever
runs through here without an error moves each tensor where it is needed.
"""

from __future__ import annotations

import weakref
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode, return_and_correct_aliasing
from torch.utils._pytree import tree_leaves, tree_map

from circuit_tracer_cli.backends import backend_class
from circuit_tracer_cli.backends.devices import Placement
from circuit_tracer_cli.backends.placing import place
from circuit_tracer_cli.replacement import ReplacementModel
from tests.builders import new_model, number_tokenizer, replacement, transcoders

aten = torch.ops.aten
_INDEXING = (
    aten.index.Tensor,
    aten.index_put_.default,
    aten.index_put.default,
    aten._index_put_impl_.default,
)
_MOVES = (aten.copy_.default, aten._to_copy.default)


class DevicesMixed(RuntimeError):
    """An operation on tensors of two devices."""


class PretendedTensor(Tensor):
    """A tensor that says it lies elsewhere."""

    inner: Tensor

    @staticmethod
    def __new__(cls, inner: Tensor, device: torch.device) -> PretendedTensor:
        self = Tensor._make_wrapper_subclass(
            cls,
            inner.shape,
            strides=inner.stride(),
            storage_offset=inner.storage_offset(),
            dtype=inner.dtype,
            device=device,
            requires_grad=inner.requires_grad,
        )
        self.inner = inner
        for ledger in _LEDGERS:
            ledger.enter(self)
        return self

    __torch_function__ = torch._C._disabled_torch_function_impl

    def __tensor_flatten__(self) -> tuple[list[str], torch.device]:
        return ["inner"], self.device

    @staticmethod
    def __tensor_unflatten__(
        inner: dict[str, Tensor], device: torch.device, size: Any, stride: Any
    ) -> Tensor:
        return PretendedTensor(inner["inner"], device)

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _run(func, args, kwargs or {})


class Ledger:
    """Counts what happens on pretended devices: bytes that live there, and refuses more than a limit; work; what goes to and fro.

    Attributes:
        held: Bytes now.
        peak: The most that there were.
        limit: Bytes beyond which a new tensor is an OutOfMemoryError; None for no limit.
        failures: How often there were more.
        kernels: Operations that compute or copy something there.
        waits: Operations whose result the host must know, so that it waits for the device; copies to the host aren't counted.
        to_host, to_device: Bytes of each copy.
    """

    def __init__(self) -> None:
        self.held, self.peak, self.failures = 0, 0, 0
        self.kernels, self.waits = 0, 0
        self.to_host: list[int] = []
        self.to_device: list[int] = []
        self.limit: int | None = None
        self._users: Counter[int] = Counter()

    def __enter__(self) -> Ledger:
        _LEDGERS.append(self)
        return self

    def __exit__(self, *error: object) -> None:
        _LEDGERS.remove(self)

    def enter(self, tensor: PretendedTensor) -> None:
        """Count a tensor's memory until the last tensor in it is gone."""
        storage = tensor.inner.untyped_storage()
        address, size = storage._cdata, storage.nbytes()
        if not self._users[address]:
            if self.limit is not None and self.held + size > self.limit:
                self.failures += 1
                raise torch.OutOfMemoryError(
                    f"CUDA out of memory. Tried to allocate {size} bytes. (pretended)"
                )
            self.held += size
            self.peak = max(self.peak, self.held)
        self._users[address] += 1
        weakref.finalize(tensor, self._leave, address, size)

    def count(self, func: Any, args: Any, kwargs: Any) -> None:
        """Count an operation."""
        given = [value for value in tree_leaves((args, kwargs)) if isinstance(value, Tensor)]
        if not any(isinstance(value, PretendedTensor) for value in given) and func not in _MOVES:
            return
        target = kwargs.get("device")
        if func is aten._to_copy.default and target is not None and torch.device(target) != given[0].device:
            (self.to_device if torch.device(target).index else self.to_host).append(given[0].nbytes)
        elif func is aten.copy_.default and given[0].device != given[1].device:
            (self.to_device if given[0].device.index else self.to_host).append(given[1].nbytes)
        elif func in _WAITS or (func is aten.index.Tensor and any(_masks(args[1]))):
            self.waits += 1
        if any(isinstance(value, PretendedTensor) for value in given) and not func.is_view:
            self.kernels += 1

    def _leave(self, address: int, size: int) -> None:
        self._users[address] -= 1
        if not self._users[address]:
            self.held -= size


_LEDGERS: list[Ledger] = []
_WAITS = (
    aten.nonzero.default,
    aten._local_scalar_dense.default,
    aten.equal.default,
    aten.masked_select.default,
    aten._unique2.default,
    aten.unique_consecutive.default,
)


def _masks(indices: Any) -> Iterator[bool]:
    """Whether each index is a mask on a device, of which the host must know how many it lets through."""
    return (
        isinstance(index, PretendedTensor) and index.dtype == torch.bool for index in tree_leaves(indices)
    )


class _Checked(TorchDispatchMode):
    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _run(func, args, kwargs or {})


class _Made(TorchFunctionMode):
    """`torch.tensor` makes numbers on the CPU and moves them below what a dispatch mode sees."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is torch.tensor and kwargs.get("device") is not None:
            device = kwargs.pop("device")
            return func(*args, **kwargs).to(device)
        if func is Tensor.new_tensor:
            return torch.tensor(args[1], dtype=args[0].dtype).to(args[0].device)
        if func is Tensor.tolist:
            for ledger in _LEDGERS if isinstance(args[0], PretendedTensor) else ():
                ledger.waits += 1
            return func(_inner(args[0]))
        return func(*args, **kwargs)


def on_pretended(device: torch.device, family: str, kind: str) -> ReplacementModel:
    """A tiny model and its set with skip connections on one device; made and used under `pretended()`."""
    model, layout = new_model(family), replacement(family, kind).model.shape.layout
    where = Placement((device,) * model.config.num_hidden_layers)
    place(model, layout, where)
    backend = backend_class("transformerlens")(model, number_tokenizer(), f"tiny/{family}")
    return ReplacementModel(backend, transcoders(kind, "jumprelu", True).place(where.layers))


@contextmanager
def pretended() -> Iterator[None]:
    """While this is on, `cpu:1` and its kind are devices of their own."""
    with _Checked(), _Made(), torch.autograd.set_multithreading_enabled(False):
        yield


def _inner(value: Any) -> Any:
    return value.inner if isinstance(value, PretendedTensor) else value


def _run(func: Any, args: Any, kwargs: Any) -> Any:
    """One operation: check where its operands are, compute on the CPU, say where the result is."""
    for ledger in _LEDGERS:
        ledger.count(func, args, kwargs)
    target = kwargs.get("device")
    device = _common_device(func, args, kwargs) if target is None else torch.device(target)
    if func is aten.copy_.default:
        device = args[0].device
    given = {**kwargs, "device": torch.device("cpu")} if target is not None else kwargs
    out = func(*tree_map(_inner, args), **tree_map(_inner, given))
    if device is not None and device.index:
        out = tree_map(lambda value: PretendedTensor(value, device) if _is_dense(value) else value, out)
    return return_and_correct_aliasing(func, args, kwargs, out) if _involved(args, kwargs) else out


def _is_dense(value: Any) -> bool:
    """Whether a value is a tensor that can pretend; sparse ones count as being wherever they are wanted."""
    return isinstance(value, Tensor) and value.layout is torch.strided


def _involved(args: Any, kwargs: Any) -> bool:
    return any(isinstance(value, PretendedTensor) for value in tree_leaves((args, kwargs)))


def _common_device(func: Any, args: Any, kwargs: Any) -> torch.device | None:
    tensors = [value for value in tree_leaves((args, kwargs)) if isinstance(value, Tensor)]
    if func in _MOVES:
        return tensors[0].device
    if func in _INDEXING:
        indices = tree_leaves(args[1])
        tensors = [t for t in tensors if isinstance(t, PretendedTensor) or all(t is not i for i in indices)]
    devices = {t.device for t in tensors if t.device.index or (t.dim() and _is_dense(t))}
    if len(devices) > 1:
        raise DevicesMixed(f"{func} on tensors at {', '.join(sorted(map(str, devices)))}")
    return next(iter(devices), None)
