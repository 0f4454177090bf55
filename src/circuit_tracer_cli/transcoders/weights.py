"""Sources of a weight matrix: in memory, or read from its file row by row as needed.

All kinds return the same rows in the same blocks, so that results don't depend on the kind. Nothing that is read from
a file is kept.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

import torch
from torch import Tensor

from circuit_tracer_cli.errors import BadTranscoders
from circuit_tracer_cli.files.tensors import TensorFile

_BLOCK_ELEMENTS = 2**24


class WeightSource(Protocol):
    """A matrix with features along its first axis."""

    @property
    def shape(self) -> tuple[int, ...]:
        """`(feature, ...)`."""

    @property
    def device(self) -> torch.device:
        """The device of the rows."""

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of the rows."""

    @property
    def lazy(self) -> bool:
        """True if the rows stay in their file."""

    def rows(self, features: Tensor) -> Tensor:
        """A copy of the rows `features (n)` int64, in any order, repeats allowed."""

    def blocks(self) -> Iterator[tuple[int, Tensor]]:
        """Consecutive read-only blocks with their first feature, each valid until the next is requested."""

    def full(self) -> Tensor:
        """The full matrix, read-only."""

    def load(self) -> EagerWeights:
        """The matrix in memory. Raises BadTranscoders if it isn't finite."""

    def require_finite(self, block: Tensor | None = None) -> None:
        """Raise BadTranscoders naming the tensor if a block, or by default the matrix, contains NaN or infinity."""

    def to(self, device: torch.device, dtype: torch.dtype) -> WeightSource:
        """The same matrix on another device."""


class EagerWeights:
    """A matrix in memory."""

    lazy = False

    def __init__(self, tensor: Tensor, origin: str = "a tensor") -> None:
        self.tensor = tensor
        self.origin = origin

    @property
    def shape(self) -> tuple[int, ...]:
        """`(feature, ...)`."""
        return tuple(self.tensor.shape)

    @property
    def device(self) -> torch.device:
        """Its device."""
        return self.tensor.device

    @property
    def dtype(self) -> torch.dtype:
        """Its dtype."""
        return self.tensor.dtype

    def rows(self, features: Tensor) -> Tensor:
        """A copy of the rows `features`."""
        return self.tensor.index_select(0, features.to(self.tensor.device))

    def blocks(self) -> Iterator[tuple[int, Tensor]]:
        """Views of the matrix."""
        for start, stop in _block_bounds(self.shape):
            yield start, self.tensor[start:stop]

    def full(self) -> Tensor:
        """The matrix itself."""
        return self.tensor

    def load(self) -> EagerWeights:
        """Itself."""
        return self

    def require_finite(self, block: Tensor | None = None) -> None:
        """Raise BadTranscoders if the block, or by default the matrix, isn't finite."""
        require_finite(self.tensor if block is None else block, self.origin)

    def to(self, device: torch.device, dtype: torch.dtype) -> EagerWeights:
        """The same matrix moved and cast; shared if nothing changes."""
        return EagerWeights(self.tensor.to(device, dtype), self.origin)


class ZeroWeights:
    """The matrix of a layer without a transcoder: rows of zeros that take no memory.

    Args:
        shape: `(feature, ...)`.
        device: Device of the rows.
        dtype: Dtype of the rows.
    """

    lazy = False

    def __init__(self, shape: tuple[int, ...], device: torch.device, dtype: torch.dtype) -> None:
        self.shape, self.device, self.dtype = shape, device, dtype

    def rows(self, features: Tensor) -> Tensor:
        """Zeros for the rows `features`."""
        return torch.zeros(len(features), *self.shape[1:], device=self.device, dtype=self.dtype)

    def blocks(self) -> Iterator[tuple[int, Tensor]]:
        """One block: the full matrix."""
        yield 0, self.full()

    def full(self) -> Tensor:
        """The matrix, as a single expanded zero."""
        return torch.zeros((), device=self.device, dtype=self.dtype).expand(self.shape)

    def load(self) -> EagerWeights:
        """The matrix in memory."""
        return EagerWeights(self.full())

    def require_finite(self, block: Tensor | None = None) -> None:
        """Return at once: zeros are finite."""

    def to(self, device: torch.device, dtype: torch.dtype) -> ZeroWeights:
        """The same zeros on another device."""
        return ZeroWeights(self.shape, device, dtype)


class LazyWeights:
    """A matrix that stays in its file; nothing that is read is kept.

    Args:
        file: The open file.
        name: The tensor in it.
        device: Device of the rows.
        dtype: Dtype to cast rows to.
        row_shape: The shape of one row, if it isn't the file's (a per-layer decoder row is `(1, d_model)`).
    """

    lazy = True
    stored_by_rows = True  # True if the file has the matrix in the returned orientation

    def __init__(
        self,
        file: TensorFile,
        name: str,
        device: torch.device,
        dtype: torch.dtype,
        row_shape: tuple[int, ...] | None = None,
    ) -> None:
        self.file = file
        self.name = name
        self.device = device
        self.dtype = dtype
        stored = file.tensors[name].shape
        self.shape = (stored[0], *(stored[1:] if row_shape is None else row_shape))

    @property
    def origin(self) -> str:
        """The file and the tensor, for messages."""
        return f"{self.file.path}: tensor {self.name!r}"

    def rows(self, features: Tensor) -> Tensor:
        """A copy of the rows `features`; each distinct row is read once, in the order of the file."""
        distinct, place = torch.unique(features.cpu(), return_inverse=True)
        stored = self._gather(distinct)
        read = stored.to(self.device, self.dtype)
        self.file.release(self.name)
        require_finite(read, self.origin, stored)
        in_order = len(distinct) == len(features) and bool((place[1:] > place[:-1]).all())
        return read if in_order else read.index_select(0, place.to(self.device))

    def blocks(self) -> Iterator[tuple[int, Tensor]]:
        """Blocks read from the file, and not kept."""
        for start, stop in _block_bounds(self.shape):
            yield start, self._slice(start, stop).to(self.device, self.dtype)
            self.file.release(self.name)

    def full(self) -> Tensor:
        """The full matrix, read now."""
        out = torch.empty(self.shape, device=self.device, dtype=self.dtype)
        for start, block in self.blocks():
            out[start : start + len(block)] = block
        return out

    def load(self) -> EagerWeights:
        """The matrix in memory: mapped if the file has it in the requested form, else read and cast."""
        as_wanted = self.device.type == "cpu" and self.dtype is self.file.tensors[self.name].dtype
        mapped = as_wanted and self.stored_by_rows
        tensor = self.file.private(self.name).view(self.shape) if mapped else self.full()
        self.require_finite(tensor)
        return EagerWeights(tensor, self.origin)

    def require_finite(self, block: Tensor | None = None) -> None:
        """Raise BadTranscoders if a block, or by default anything in the file, isn't finite."""
        if block is not None and all_finite(block):
            return
        for start, stop in _block_bounds(self.shape):
            stored = self._slice(start, stop)
            require_finite(stored.to(self.dtype), self.origin, stored)
            self.file.release(self.name)

    def to(self, device: torch.device, dtype: torch.dtype) -> LazyWeights:
        """The same file, with rows on another device."""
        return type(self)(self.file, self.name, device, dtype, self.shape[1:])

    def _gather(self, distinct: Tensor) -> Tensor:
        """A copy of ascending rows, in the file's dtype."""
        return self.file.gather(self.name, distinct).view(len(distinct), *self.shape[1:])

    def _slice(self, start: int, stop: int) -> Tensor:
        """Rows `start … stop-1`, in the file's dtype."""
        return self.file.rows(self.name, start, stop).view(stop - start, *self.shape[1:])


class TransposedWeights(LazyWeights):
    """A matrix stored as `(d_model, feature)` and returned as `(feature, d_model)`."""

    stored_by_rows = False

    def __init__(
        self,
        file: TensorFile,
        name: str,
        device: torch.device,
        dtype: torch.dtype,
        row_shape: tuple[int, ...] | None = None,
    ) -> None:
        super().__init__(file, name, device, dtype)
        d_model, d_transcoder = file.tensors[name].shape
        self.shape = (d_transcoder, d_model)

    def _gather(self, distinct: Tensor) -> Tensor:
        return self.file.view(self.name).index_select(1, distinct).T.contiguous()

    def _slice(self, start: int, stop: int) -> Tensor:
        return self.file.view(self.name)[:, start:stop].T.contiguous()


class LaterSlots(LazyWeights):
    """A decoder stored as `(feature, layer, d_model)` over all layers; only the last slots are returned."""

    stored_by_rows = False

    def _gather(self, distinct: Tensor) -> Tensor:
        return self.file.gather(self.name, distinct)[:, self._first :].contiguous()

    def _slice(self, start: int, stop: int) -> Tensor:
        return self.file.rows(self.name, start, stop)[:, self._first :].contiguous()

    @property
    def _first(self) -> int:
        return self.file.tensors[self.name].shape[1] - self.shape[1]


def all_finite(values: Tensor) -> bool:
    """True if no value is NaN or infinite: checks one sum, and all values only if that overflows."""
    if values.numel() == 0:
        return True
    accumulate = torch.promote_types(values.dtype, torch.float32)
    return bool(values.sum(dtype=accumulate).isfinite()) or bool(values.isfinite().all())


def require_finite(values: Tensor, origin: str, stored: Tensor | None = None) -> None:
    """Raise BadTranscoders naming `origin` if a value is NaN or infinite.

    Args:
        values: The values read, in the requested dtype.
        origin: The file and tensor.
        stored: The same values as in the file, if available, to tell whether the cast made them infinite.
    """
    if all_finite(values):
        return
    dtype = str(values.dtype).removeprefix("torch.")
    if stored is not None and stored.dtype is not values.dtype and all_finite(stored):
        raise BadTranscoders(
            f"{origin} contains values too large for {dtype}", hint="use --dtype bfloat16 or float32"
        )
    raise BadTranscoders(f"{origin} contains NaN or infinite values", hint="copy or download the file again")


def _block_bounds(shape: tuple[int, ...]) -> Iterator[tuple[int, int]]:
    row_elements = max(1, torch.Size(shape[1:]).numel())
    size = max(1, _BLOCK_ELEMENTS // row_elements)
    for start in range(0, shape[0], size):
        yield start, min(start + size, shape[0])
