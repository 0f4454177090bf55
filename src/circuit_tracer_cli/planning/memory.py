"""Peak memory of a trace, phase by phase.

Memory held from one phase to the next adds up; temporary memory counts in its own phase only. The peak is the largest phase.
`python -m benchmarks.plan` compares the predictions with measured peaks.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from circuit_tracer_cli.planning.sizes import Choices, TraceSizes

MIB = 2**20
PROGRAM = 460 * MIB
"""A process that has imported torch, transformers and TransformerLens."""

PROGRAM_ON_GPU = 600 * MIB
"""Device memory taken by a CUDA context and its libraries."""

LARGEST_IMAGES = 2**25
DENSE_ELEMENTS = 2**26
READ_BLOCK = 2**27
SMALLEST_WORK = 256
WORK = {False: 4096, True: 65536}
ROWS_AT_LEAST, LARGEST_BLOCK = 32, 2**26
EDGES_IN_MEMORY = 2**30
MEAN_ELEMENTS = 2**26
PADDING = 1.06
"""How many times more decoder rows there are on an accelerator, which pads positions to contract them in batches."""


@dataclass(frozen=True, slots=True)
class MemoryPlan:
    """The bytes needed in each phase, and how to run the trace."""

    choices: Choices
    held: dict[str, int]  # memory held from then on, by name
    phases: dict[str, int]  # peak of each phase on the device that computes
    host_peak: int
    device_peak: int | None  # None where the device is the host
    scratch: int = 0  # bytes that go to temporary files because they don't fit in memory
    fits: bool = True
    device_peaks: dict[str, int] = field(default_factory=dict)  # by device, if layers are on several

    @property
    def peak(self) -> int:
        """Return the peak on the device that computes."""
        return self.host_peak if self.device_peak is None else self.device_peak


def held_parts(sizes: TraceSizes, choices: Choices) -> dict[str, int]:
    """Return the bytes of everything held for more than one phase."""
    e, P, L, d = sizes.compute_bytes, sizes.n_pos, sizes.n_layers, sizes.d_model
    folded = L * d * (sizes.attention_width + sizes.value_width) + L * sizes.n_heads * P * P
    images = token_images(sizes)
    return {
        "model": sizes.model_params * sizes.dtype_bytes,
        "encoders": 0 if choices.lazy_encoder else sizes.encoder_bytes,
        "decoders": 0 if choices.lazy_decoder else sizes.decoder_bytes,
        "forward pass": L * (sizes.n_heads * P * P + 2 * P * d) * e,
        "source vectors": round(_vectors(sizes, choices)) * d * sizes.factor_bytes,
        "folded weights": (folded + images + sizes.skip_layers * d * d) * sizes.factor_bytes,
        "encoder rows": min(sizes.features, 16384) * d * sizes.dtype_bytes,
        "rows": max(_whole_rows(sizes), _edges(sizes)),
    }


def _vectors(sizes: TraceSizes, choices: Choices) -> float:
    """Return the number of vectors that rows are contracted with: tokens, decoder rows, and for each error one where it is
    written, zeros in later layers of a cross-layer set, and a separate one."""
    P, L = sizes.n_pos, sizes.n_layers
    errors = P * L if sizes.kind == "plt" else P * L * (L + 1) // 2
    return (sizes.decoder_entries + errors) * (PADDING if choices.on_gpu else 1) + (L + 1) * P


def token_images(sizes: TraceSizes) -> int:
    """Return the elements of the tokens' images under the first attention, if the engine keeps them."""
    images = sizes.n_pos**2 * sizes.d_model
    return images if images <= LARGEST_IMAGES else 0


def _edges(sizes: TraceSizes) -> int:
    """Return the bytes of all edges; on average, half of the nodes are up to a row's position, two thirds of those below it."""
    return (sizes.features + sizes.n_targets) * sizes.nodes // 3 * 8


def _whole_rows(sizes: TraceSizes) -> int:
    """Return the bytes of rows kept whole until it is known which features become nodes; 0 if all do."""
    if sizes.features == sizes.active:
        return 0
    return sizes.features * sizes.columns * 5 // 8 * 4


def rows_held(sizes: TraceSizes, free: int | None) -> tuple[int, int]:
    """Return the bytes of rows and edges in memory and in files, if `free` bytes are free at first (None: all in memory)."""
    rows, edges = _whole_rows(sizes), _edges(sizes)
    if free is None:
        return max(rows, edges), 0
    kept, collected = min(rows, max(0, free) // 3), min(edges, 2 * EDGES_IN_MEMORY)
    return max(kept, collected), rows - kept + edges - collected


def momentary_parts(sizes: TraceSizes, choices: Choices) -> dict[str, int]:
    """Return the temporary bytes of each phase."""
    e, P, d = sizes.compute_bytes, sizes.n_pos, sizes.d_model
    block_rows = min(sizes.d_transcoder * P, DENSE_ELEMENTS)
    lazy_block = 2**24 * sizes.dtype_bytes if choices.lazy_encoder else 0
    work = min(choices.work, max(1, sizes.features) * P)
    rows_in_block = max(1, work // P)
    written = 1 if sizes.kind == "plt" else sizes.n_layers
    distinct = min(sizes.active / sizes.n_layers, sizes.d_transcoder)
    averaged = min(MEAN_ELEMENTS, sizes.d_vocab * d)
    reading = min(READ_BLOCK, round(distinct * written * d * sizes.dtype_bytes))
    return {
        "forward pass": (3 * P * sizes.d_mlp + 3 * sizes.n_heads * P * P) * e + 2 * sizes.d_vocab * e,
        "targets": 5 * sizes.d_vocab * 8 + (averaged * e if choices.on_gpu else 0),
        "active features": 3 * block_rows * sizes.dtype_bytes + lazy_block,
        "source vectors": 3 * reading + sizes.n_layers * P * d * e,
        "rows": work
        * ((2 if choices.on_gpu else 1) * d + 3 * sizes.attention_width + 2 * sizes.value_width)
        * (e + (sizes.factor_bytes if sizes.stored_in_16_bits else 0))
        + 3 * rows_in_block * sizes.columns * 4,
        "packaging": (sizes.features + sizes.n_targets) * sizes.nodes // 3 * 2,
    }


def moves(choices: Choices) -> bool:
    """True if offloading frees memory on the device that computes."""
    return choices.offload == "disk" or (choices.offload == "cpu" and choices.on_gpu)


def predict(sizes: TraceSizes, choices: Choices, host_free: int | None = None) -> MemoryPlan:
    """Return the peaks of a trace that is run in a given way.

    Args:
        sizes: Sizes of the trace.
        choices: How it is run.
        host_free: Free host memory in bytes before anything is loaded; decides how many rows go to files. None for enough.
    """
    held, moment = held_parts(sizes, choices), momentary_parts(sizes, choices)
    base = held["model"] + held["encoders"] + held["decoders"]
    program = PROGRAM_ON_GPU if choices.on_gpu else PROGRAM
    sofar = program + base
    casting = 0 if choices.on_gpu else sizes.cast_bytes
    phases = {
        "loading": sofar + casting,
        "forward pass": sofar + held["forward pass"] + moment["forward pass"],
        "targets": sofar + held["forward pass"] + moment["targets"],
    }
    away = sizes.resting_bytes if moves(choices) else 0
    sofar += held["forward pass"] - away
    phases["active features"] = sofar + moment["active features"]
    sofar += held["source vectors"] + held["folded weights"]
    phases["source vectors"] = sofar + moment["source vectors"]
    if moves(choices):
        away += held["encoders"] + held["decoders"]
        sofar -= held["encoders"] + held["decoders"]
    used = (away if choices.offload == "cpu" else 0) if choices.on_gpu else sofar - program
    kept, scratch = rows_held(sizes, None if host_free is None else host_free - used)
    scratch += away if choices.offload == "disk" else 0
    rows = 0 if choices.on_gpu else kept
    phases["rows"] = sofar + held["encoder rows"] + moment["rows"] + rows
    if not choices.on_gpu:
        phases["packaging"] = sofar + rows + moment["packaging"]
        return MemoryPlan(choices, held, phases, max(phases.values()), None, scratch)
    loading = PROGRAM + max(
        held["model"] // 4, sizes.cast_bytes, (held["encoders"] + held["decoders"]) // max(1, sizes.n_layers)
    )
    waiting = away if choices.offload == "cpu" else 0
    host = max(loading, PROGRAM + waiting + kept + moment["packaging"])
    return MemoryPlan(choices, held, phases, host, max(phases.values()), scratch)


def usual_work(sizes: TraceSizes, on_gpu: bool, busy: int | None = None) -> int:
    """Rows times positions in one block of the engine where there is memory enough; `busy` of them keep the device busy."""
    usual = WORK[on_gpu] if busy is None else busy
    return max(usual, min(ROWS_AT_LEAST * sizes.n_pos, LARGEST_BLOCK // sizes.d_model))
