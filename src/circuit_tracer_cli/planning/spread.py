"""Peak memory of each device when layers are on several.

Everything that belongs to a layer is on its device. The embedding, the first attention's images and the rows are with
layer 0; the unembedding and the logits are with the last layer.
"""

from __future__ import annotations

from circuit_tracer_cli.planning.memory import (
    PROGRAM,
    PROGRAM_ON_GPU,
    held_parts,
    momentary_parts,
    moves,
    token_images,
)
from circuit_tracer_cli.planning.sizes import Choices, DeviceBudget, TraceSizes


def device_peaks(sizes: TraceSizes, choices: Choices, devices: tuple[DeviceBudget, ...]) -> dict[str, int]:
    """Return the peak on each device in bytes, by name; for a CPU, what its layers take of the host."""
    peaks: dict[str, int] = {}
    for number, device in enumerate(devices):
        first, last = number == 0, number == len(devices) - 1
        peaks[device.name] = _peak(sizes, choices, device, first=first, last=last)
    return peaks


def _peak(sizes: TraceSizes, choices: Choices, device: DeviceBudget, *, first: bool, last: bool) -> int:
    held, moment = held_parts(sizes, choices), momentary_parts(sizes, choices)
    share = len(device.layers) / sizes.n_layers
    embedding = sizes.d_vocab * sizes.d_model * sizes.dtype_bytes
    ends = embedding * (first + last)
    logits = 2 * sizes.d_vocab * sizes.compute_bytes
    weights = share * (held["encoders"] + held["decoders"])
    sofar = program_on(device) + _model_on(sizes, device, first=first, last=last) + weights
    sofar += share * held["forward pass"]
    phases = [sofar + moment["forward pass"] - (0 if last else logits)]
    if last:
        phases.append(sofar + moment["targets"])
    if moves(choices):
        sofar -= share * max(0, sizes.resting_bytes - 2 * embedding) + ends
    phases.append(sofar + moment["active features"])
    images = token_images(sizes) * sizes.factor_bytes
    sofar += _share_of_vectors(sizes, device) * held["source vectors"]
    sofar += share * (held["folded weights"] - images) + first * images
    phases.append(sofar + moment["source vectors"])
    if moves(choices):
        sofar -= weights
    phases.append(sofar + first * held["encoder rows"] + moment["rows"])
    return round(max(phases))


def held_bytes(sizes: TraceSizes, weights: int, devices: tuple[DeviceBudget, ...]) -> dict[str, int]:
    """Return the bytes that a loaded model, its set and the program take on each device, counted as in `device_peaks`.

    Args:
        sizes: Sizes of the trace.
        weights: Bytes of the encoders and decoders that are in memory.
        devices: The devices, by first layer.
    """
    return {
        device.name: program_on(device)
        + round(
            _model_on(sizes, device, first=device is devices[0], last=device is devices[-1])
            + len(device.layers) / sizes.n_layers * weights
        )
        for device in devices
    }


def program_on(device: DeviceBudget) -> int:
    """Return the bytes that the program itself takes on a device."""
    return PROGRAM_ON_GPU if device.name.startswith("cuda") else PROGRAM


def _model_on(sizes: TraceSizes, device: DeviceBudget, *, first: bool, last: bool) -> float:
    embedding = sizes.d_vocab * sizes.d_model * sizes.dtype_bytes
    layers = max(0, sizes.model_params * sizes.dtype_bytes - 2 * embedding)
    return len(device.layers) / sizes.n_layers * layers + embedding * (first + last)


def _share_of_vectors(sizes: TraceSizes, device: DeviceBudget) -> float:
    """Return the share of vectors that write to a device's layers; in a cross-layer set all earlier layers write to a layer."""
    if sizes.kind == "plt":
        return len(device.layers) / sizes.n_layers
    return sum(layer + 1 for layer in device.layers) / (sizes.n_layers * (sizes.n_layers + 1) / 2)
