"""Time of a trace: floating-point operations and bytes per phase, divided by the machine's measured rates.

The formula for rows is that of `benchmarks/floor.py`, with targets at the middle layer and features spread evenly over positions.
"""

from __future__ import annotations

from dataclasses import dataclass

from circuit_tracer_cli.planning.sizes import Choices, TraceSizes

EFFICIENCY = 0.7
"""Share of the matrix-product rate that the engine reaches; measured by `make bench`."""


@dataclass(frozen=True, slots=True)
class Rates:
    """A machine's rates, per second."""

    flops: float  # multiply-adds times two of a large float32 matrix product
    bytes: float  # copied in memory
    disk_bytes: float = 1e9  # read from the file system


def row_flops(sizes: TraceSizes) -> float:
    """Return the operations of all rows: features at every layer and position, targets at the top of the last position."""
    P, L, d = sizes.n_pos, sizes.n_layers, sizes.d_model
    attention, values = sizes.attention_width, sizes.value_width
    sources = sizes.decoder_entries / max(1, L * P) + 1

    def one(blocks: float, width: float, squared: float) -> float:
        through = blocks * (width * 2 * d * (attention + values) + squared * attention)
        return through + 2 * d * (blocks * width * sources + width)

    start = 2 * d * attention + 2 * (P / 2) * attention + (P / 2) * 2 * d * values
    features = sizes.features * (one((L - 1) / 2, (P + 1) / 2, P * P / 3) + start)
    return features + sizes.n_targets * one(L, P, P * P)


BUILD_SECONDS = 0.2
"""Seconds to build a model of any size, measured on the demo."""


def plan_time(sizes: TraceSizes, choices: Choices, rates: Rates) -> dict[str, float]:
    """Return seconds per phase, without starting the program or downloading anything."""
    read = sizes.model_params * sizes.dtype_bytes + (0 if choices.lazy_encoder else sizes.encoder_bytes)
    read += 0 if choices.lazy_decoder else sizes.decoder_bytes
    encode = 2.0 * sizes.n_pos * sizes.d_transcoder * sizes.d_model * sizes.n_layers / rates.flops
    scan = sizes.encoder_bytes / (rates.disk_bytes if choices.lazy_encoder else rates.bytes)
    vectors = sizes.decoder_entries * sizes.d_model * sizes.compute_bytes
    return {
        "loading": BUILD_SECONDS + read / rates.disk_bytes,
        "forward pass": 2.0 * sizes.model_params * sizes.n_pos / rates.flops,
        "active features": max(encode, scan)
        + 4 * sizes.n_pos * sizes.d_transcoder * sizes.n_layers * 4 / rates.bytes,
        "source vectors": 6 * vectors / rates.bytes,
        "rows": row_flops(sizes) / (EFFICIENCY * rates.flops),
        "packaging": sizes.features * sizes.nodes * 8 / 3 / rates.bytes,
    }
