"""The floating-point operations that a set of rows costs at least, and how fast this machine multiplies matrices."""

from __future__ import annotations

import time
from collections.abc import Callable

import torch

from benchmarks.shapes import Shape
from circuit_tracer_cli.graph.graph import Graph


def row_flops(graph: Graph, shape: Shape, kind: str) -> float:
    """Multiply-adds times two of all rows, each pulled back alone through dense matrices.

    A row at (layer, position) visits `layer + 1` attention blocks over `position + 1` positions: `W_O`, pattern
    (its causal half), `W_V`; in the first block it stands at one position. Every source below and before it costs
    one dot product per layer it writes to below the target.
    """
    d, attention = shape.d_model, shape.n_heads * shape.d_head
    values = shape.n_kv_heads * shape.d_head
    indices = graph.active_features
    per_layer = torch.zeros(shape.n_layers, graph.n_pos)
    per_layer.index_put_((indices[:, 0], indices[:, 1]), torch.ones(len(indices)), accumulate=True)
    sources = per_layer if kind == "plt" else per_layer.cumsum(0)
    reachable = torch.zeros(shape.n_layers + 1, graph.n_pos)
    reachable[1:] = (sources + 1).cumsum(0).cumsum(1)
    chosen = indices[graph.selected_features]
    layers = torch.cat([chosen[:, 0], torch.full((len(graph.logit_targets),), shape.n_layers)]).double()
    positions = torch.cat([chosen[:, 1], torch.full((len(graph.logit_targets),), graph.n_pos - 1)]).double()
    width = positions + 1
    full_blocks = torch.where(layers == shape.n_layers, layers, layers)
    first_block = (layers < shape.n_layers).double()
    block = width * 2 * d * (attention + values) + width * width * attention
    start = first_block * (2 * d * attention + 2 * width * attention + width * 2 * d * values)
    contraction = 2 * d * (reachable[layers.long(), positions.long()].double() + width)
    return float((full_blocks * block + start + contraction).sum())


def fastest(
    work: Callable[[], object], device: torch.device, times: int, clock: Callable[[], float]
) -> float:
    """Seconds of the fastest of several runs; on a CUDA device between two events, so that no start is counted."""
    best = float("inf")
    for _ in range(times):
        if device.type == "cuda":
            begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
            begin.record()
            work()
            end.record()
            torch.cuda.synchronize(device)
            best = min(best, begin.elapsed_time(end) / 1000)
        else:
            start = clock()
            work()
            best = min(best, clock() - start)
    return best


def copy_rate(device: torch.device, clock: Callable[[], float] = time.perf_counter) -> float:
    """Bytes read and written per second by a copy of 256 MiB, best of several."""
    a = torch.ones(2**26, device=device)
    b = torch.empty_like(a)
    return 2 * a.nbytes / fastest(lambda: b.copy_(a), device, 5, clock)


def call_floor(graph: Graph, shape: Shape, kind: str) -> dict[str, tuple[float, float]]:
    """Operations and bytes that each phase costs at least: (flops, bytes).

    The forward pass multiplies by every weight of the blocks at every position; the active features multiply by every
    encoder; the source vectors read each active decoder row once and write it once; packaging writes each edge once.
    """
    d, P, L = shape.d_model, graph.n_pos, shape.n_layers
    attention = 2 * d * shape.d_head * (shape.n_heads + shape.n_kv_heads)
    block = attention + 3 * d * shape.d_mlp
    features = shape.plt_features if kind == "plt" else shape.clt_features
    written = torch.ones(L) if kind == "plt" else torch.arange(L, 0, -1).float()
    entries = float(written[graph.active_features[:, 0]].sum())
    return {
        "forward pass": (2.0 * P * L * block, 4.0 * L * block),
        "active features": (2.0 * P * L * features * d, 4.0 * L * features * d),
        "source vectors": (2.0 * entries * d, 8.0 * entries * d),
        "rows": (row_flops(graph, shape, kind), 0.0),
        "packaging": (0.0, 8.0 * graph.edges.nnz),
    }


def gemm_rate(device: torch.device, d_model: int, clock: Callable[[], float] = time.perf_counter) -> float:
    """Operations per second of a float32 product `(rows, d_model) @ (d_model, d_model)`, best of several.

    1,024 rows on a CPU; 16,384 on a CUDA device, which fewer don't fill. There it's TF32 where torch is told so.
    """
    rows = 1024 if device.type == "cpu" else 16_384
    a = torch.randn(rows, d_model, device=device)
    b = torch.randn(d_model, d_model, device=device)
    return 2 * rows * d_model**2 / fastest(lambda: a @ b, device, 12, clock)
