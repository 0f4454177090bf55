"""Rows of chosen features, block by block, for any engine and any amount of memory.

Targets are grouped into blocks in an order that suits the engine; a block that doesn't fit is halved until it does. Neither
changes a result: which features are traced is decided elsewhere and doesn't depend on it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Protocol

import torch
from torch import Tensor

from circuit_tracer_cli.attribution.columns import Columns
from circuit_tracer_cli.attribution.linear import Targets
from circuit_tracer_cli.attribution.ranking import RowBlock
from circuit_tracer_cli.attribution.transfer import OnTheWay, arrived, keeps_rows, left_there, sent_to_host
from circuit_tracer_cli.planning.free import busy_work
from circuit_tracer_cli.transcoders.base import Transcoders
from circuit_tracer_cli.transcoders.components import ActiveFeatures


class Engine(Protocol):
    """Computes rows: the linear engine, or vector-Jacobian products."""

    name: str
    columns: Columns
    n_layers: int

    def rows(self, targets: Targets) -> Tensor:
        """Return rows of targets sorted by layer from high to low, `(row, columns up to the last position)`."""

    def give_back_memory(self) -> None:
        """Let go of memory that is kept for the next block."""


@dataclass(slots=True)
class BlockSize:
    """The largest number of rows times positions in one block. Shrinks when memory runs out, and stays small.

    Attributes:
        work: That number.
        halvings: How often it shrank.
        spill: Moves rows that are kept on the device to the host, before anything shrinks; says whether there were any.
    """

    work: int
    halvings: int = 0
    spill: Callable[[], bool] | None = None

    def shrink(self, work: int) -> None:
        """Remember that `work` was too much."""
        self.work = max(1, min(self.work, work // 2))
        self.halvings += 1


OUT_OF_MEMORY = (
    "allocate memory",  # the host's allocator, pinned memory
    "not enough memory",  # the host's on Windows
    "out of memory",  # CUDA, HIP and XPU allocators and runtimes, MPS
    "outofmemory",  # hipErrorOutOfMemory
    "errormemoryallocation",  # cudaErrorMemoryAllocation
    "status_alloc_failed",  # cuBLAS, cuSOLVER, cuSPARSE
    "invalid buffer size",  # MPS, of a tensor larger than Metal takes
)
"""What errors that mean too little memory say, in lower case."""


def is_out_of_memory(error: BaseException) -> bool:
    """Whether Python, torch or a library below it ran out of memory, on any device."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    said = str(error).lower() if isinstance(error, RuntimeError) else ""
    return any(words in said for words in OUT_OF_MEMORY)


def rows_in_parts(
    engine: Engine, targets: Targets, index: Tensor, size: BlockSize, stay: bool = False
) -> Iterator[tuple[Tensor, OnTheWay]]:
    """Yield the rows of `targets.select(index)` on their way, as `(part of index, rows)`, in the order of `index`.

    Args:
        engine: Computes them.
        targets: The targets that `index` selects from, sorted by layer from high to low.
        index: `(n)` int64.
        size: Largest size of a part; shrunk if memory runs out.
        stay: Leave rows on a device that keeps them, instead of sending them to the host.

    Raises what the engine raises; an out-of-memory error only if a single row doesn't fit.
    """
    parts = [index]
    while parts:
        part = parts.pop()
        work = len(part) * (int(targets.positions[part].max()) + 1)
        if len(part) > 1 and size.halvings and work > size.work:
            parts += reversed(part.chunk(2))
            continue
        rows = _attempt(engine, targets, part, stay)
        if rows is None:
            engine.give_back_memory()
            spilled = size.spill is not None and size.spill()
            _give_back(targets.vectors.device)
            if spilled:
                parts.append(part)
                continue
            size.shrink(work)
            parts += reversed(part.chunk(2))
            continue
        yield part, rows


def _attempt(engine: Engine, targets: Targets, part: Tensor, stay: bool) -> OnTheWay | None:
    """Return the rows on their way, or None if they don't fit. The attempt's memory is free when it returns."""
    try:
        rows = engine.rows(targets.select(part))
        return left_there(rows) if stay and keeps_rows(rows.device) else sent_to_host(rows)
    except (MemoryError, RuntimeError) as error:
        if len(part) == 1 or not is_out_of_memory(error):
            raise
    return None


def _give_back(device: torch.device) -> None:
    """Make an accelerator's allocator return memory that it keeps in blocks of the old size."""
    if device.type == "cuda":
        torch.cuda.empty_cache()
    elif device.type == "mps":
        torch.mps.empty_cache()


WASTE = 0.08
"""Largest share of positions in a block that come after their row's own target."""

SMALLEST_WORK = 192
"""Blocks of fewer rows times positions are filled up regardless of waste: matrix products that small are slow."""


def plan_blocks(
    layers: Tensor, positions: Tensor, largest_work: int, smallest_work: int = SMALLEST_WORK
) -> list[Tensor]:
    """Return the index tensors of the blocks, each sorted by layer from high to low.

    Args:
        layers: `(n)` layer of each target.
        positions: `(n)` position of each target.
        largest_work: Largest number of rows times positions in one block.
        smallest_work: Blocks of fewer are filled up whatever the waste.
    """
    order = torch.argsort(positions, descending=True, stable=True)
    wanted = positions[order] + 1
    blocks: list[Tensor] = []
    start = 0
    while start < len(wanted):
        end = _block_end(wanted, start, largest_work, smallest_work)
        index = order[start:end]
        blocks.append(index[torch.argsort(layers[index], descending=True, stable=True)])
        start = end
    return blocks


def _block_end(wanted: Tensor, start: int, largest_work: int, smallest_work: int) -> int:
    """Return the end of the block that begins at `start`; `wanted` are the positions that each target needs, descending."""
    width = int(wanted[start])
    window = wanted[start : start + largest_work // width + 2]
    rows = torch.arange(1, len(window) + 1)
    work, useful = rows * width, window.cumsum(0)
    full = (work > largest_work) & (rows > 1)
    wasteful = (work > smallest_work) & (work > (1 + WASTE) * useful)
    beyond = (full | wasteful).nonzero()
    return start + (int(beyond[0]) if len(beyond) else len(window))


CPU_WORK = 4096
"""Rows times positions in one block: large enough for efficient matrix products, small enough to stay in cache."""

ROWS_AT_LEAST = 32
"""Smallest number of rows in a block, however long the prompt, since each block reads every decoder row once …"""

LARGEST_BLOCK = 2**26
"""… as long as its cotangents have no more elements than this."""

ENCODER_ROWS_AT_ONCE = 16384
"""Targets whose encoder rows are held at the same time, where they fit."""

SMALLEST_SHARE = 16
"""An accelerator's blocks are filled up to this part of the most work whatever the waste: starting a block costs more."""


def largest_work(device: torch.device, n_pos: int = 1, d_model: int = 1) -> int:
    """Return rows times positions in one block on a device, for a prompt of `n_pos` tokens."""
    usual = CPU_WORK if device.type == "cpu" else busy_work(device)
    return max(usual, min(ROWS_AT_LEAST * n_pos, LARGEST_BLOCK // d_model))


def target_rows(engine: Engine, targets: Targets, size: BlockSize) -> Iterator[RowBlock]:
    """Return the rows of a graph's targets; the node of target `k` is `n_features + k`."""
    n_features, layers = engine.columns.n_features, targets.layers
    chunks = plan_blocks(layers, targets.positions, size.work)
    parts = chain.from_iterable(rows_in_parts(engine, targets, chunk, size, True) for chunk in chunks)
    for index, rows in arrived(parts):
        yield RowBlock(index + n_features, layers[index], rows)


def feature_rows(
    engine: Engine,
    transcoders: Transcoders,
    active: ActiveFeatures,
    chosen: Tensor,
    size: BlockSize,
    stay: bool = False,
) -> Iterator[RowBlock]:
    """Yield rows of the chosen active features (indices into `active`), in an order that suits the engine.

    `stay` leaves them on a device that keeps rows, instead of sending them to the host.
    """
    for (nodes, layers), rows in arrived(_begun(engine, transcoders, active, chosen, size, stay)):
        yield RowBlock(nodes, layers, rows)


def _begun(
    engine: Engine,
    transcoders: Transcoders,
    active: ActiveFeatures,
    chosen: Tensor,
    size: BlockSize,
    stay: bool,
) -> Iterator[tuple[tuple[Tensor, Tensor], OnTheWay]]:
    """Yield the same as `((nodes, layers), rows)`, without waiting."""
    chosen = torch.sort(chosen).values
    by_position = chosen[
        torch.argsort(active.indices[chosen.to(active.indices.device), 1].cpu(), descending=True, stable=True)
    ]
    on_cpu = transcoders.device.type == "cpu"
    for part, targets in _in_chunks(engine, transcoders, active, by_position):
        smallest = SMALLEST_WORK if on_cpu else size.work // SMALLEST_SHARE
        for block in plan_blocks(targets.layers, targets.positions, size.work, smallest):
            for index, rows in rows_in_parts(engine, targets, block, size, stay):
                yield (part[index], targets.layers[index]), rows


def _in_chunks(
    engine: Engine, transcoders: Transcoders, active: ActiveFeatures, chosen: Tensor
) -> Iterator[tuple[Tensor, Targets]]:
    """The chosen features with their encoder rows, as many at a time as fit."""
    at_once, start = ENCODER_ROWS_AT_ONCE, 0
    while start < len(chosen):
        part = chosen[start : start + at_once]
        indices = active.indices[part.to(active.indices.device)].cpu()
        vectors = _encoder_rows_that_fit(transcoders, indices, active.inputs)
        if vectors is None:
            engine.give_back_memory()
            _give_back(transcoders.device)
            at_once = max(1, len(part) // 2)
            continue
        yield part, Targets(indices[:, 0], indices[:, 1], vectors)
        del vectors
        start += len(part)


def _encoder_rows_that_fit(
    transcoders: Transcoders, indices: Tensor, inputs: Sequence[Tensor]
) -> Tensor | None:
    """Encoder rows of features `(n, 3)`, or None where so many don't fit."""
    try:
        return encoder_rows(transcoders, indices, inputs)
    except (MemoryError, RuntimeError) as error:
        if len(indices) == 1 or not is_out_of_memory(error):
            raise
    return None


def encoder_rows(transcoders: Transcoders, indices: Tensor, inputs: Sequence[Tensor]) -> Tensor:
    """Return encoder rows `(n, d_model)` of features of several layers, with one read per layer.

    Args:
        transcoders: The set.
        indices: `(n, 3)` int64: layer, position, feature.
        inputs: Per layer `(pos, d_model)`, what features read on the prompt.
    """
    dtype = transcoders.dtype
    if transcoders.of_model:
        dtype = torch.promote_types(dtype, torch.float32)
    out = torch.empty(len(indices), transcoders.d_model, dtype=dtype, device=transcoders.device)
    layers, positions, features = indices.unbind(1)
    for layer in torch.unique(layers).tolist():
        here = torch.nonzero(layers == layer).squeeze(1)
        x = inputs[layer][positions[here].to(inputs[layer].device)] if transcoders.of_model else None
        rows = transcoders.encoder_rows(layer, features[here].to(transcoders.device), x)
        out[here.to(out.device)] = rows.to(out)
    return out
