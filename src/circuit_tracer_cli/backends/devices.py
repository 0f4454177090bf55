"""The device of each layer, from the user's input. Independent of models and transcoders."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from circuit_tracer_cli.errors import InvalidType, InvalidValue, UnsuitableValue

DeviceMap = str | Mapping[Any, Any] | Sequence[Any]
"""`auto`, `balanced`, `"0-11:cuda:0,12-25:cuda:1"`, `"cuda:0,cuda:1"`, a mapping of such ranges, or one device per layer."""

SPREADS = ("auto", "balanced")
_RANGE = re.compile(r"\s*(\d+)\s*(?:-\s*(\d+))?\s*")
_EXAMPLE = 'for example "0-11:cuda:0,12-25:cuda:1", "cuda:0,cuda:1", balanced, or JSON {"0-11": "cuda:0", "12-25": "cuda:1"}'

HOME_SHARE = 0.8
"""The first device takes this part of its share of layers, since it also has the embedding and the rows."""


@dataclass(frozen=True, slots=True)
class Placement:
    """The device of each layer. The embedding is with the first, the final norm and an untied unembedding with the last."""

    layers: tuple[torch.device, ...]

    @property
    def first(self) -> torch.device:
        """The device of prompts and rows."""
        return self.layers[0]

    @property
    def devices(self) -> tuple[torch.device, ...]:
        """Each device once, in the order of its first layer."""
        return tuple(dict.fromkeys(self.layers))

    def __str__(self) -> str:
        return in_words(self.layers)


def in_words(layers: Sequence[torch.device]) -> str:
    """`0-11:cuda:0,12-25:cuda:1`, or a single device's name."""
    if len(set(layers)) == 1:
        return str(layers[0])
    runs: list[tuple[int, int, torch.device]] = []
    for layer, device in enumerate(layers):
        if runs and runs[-1][2] == device:
            runs[-1] = runs[-1][0], layer, device
        else:
            runs.append((layer, layer, device))
    return ",".join(f"{first}-{last}:{device}" for first, last, device in runs)


def default_device() -> torch.device:
    """CUDA, else Apple's GPU, else the CPU."""
    if torch.cuda.is_available():
        return torch.device("cuda")
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")


def pick_device(name: str) -> torch.device:
    """The torch device for `auto`, `cpu`, `cuda`, `cuda:1` or `mps`. Raises InvalidValue for an unavailable one."""
    if name == "auto":
        return default_device()
    try:
        device = torch.device(name)
    except RuntimeError:
        raise InvalidValue(f"unknown device {name!r}", hint="choose auto, cpu, cuda, cuda:N or mps") from None
    available = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if not available.get(device.type, False) or (device.index or 0) >= max(1, torch.cuda.device_count()):
        raise InvalidValue(
            f"the device {name} is not available",
            hint="use --device auto; `circuit-tracer doctor` lists devices",
        )
    return device


def place_layers(device_map: DeviceMap | Placement, n_layers: int) -> Placement:
    """The device of each of `n_layers` layers.

    Args:
        device_map: `auto` or `balanced` spread the layers over all GPUs by free memory (one device without a second
            GPU). Devices without ranges share the layers evenly, in order. Ranges and mappings name each layer once.
        n_layers: Number of layers of the model.

    Raises:
        InvalidValue: A device isn't available, or a layer is named twice, not named, or not in the model.
        InvalidType: The map is neither text, a mapping nor a list.
    """
    if isinstance(device_map, Placement):
        return device_map
    if isinstance(device_map, str):
        if device_map.strip() in SPREADS:
            return Placement(_by_memory(n_layers))
        pairs, devices = _read(device_map)
        return Placement(_of_ranges(pairs, n_layers) if pairs else _evenly(devices, n_layers))
    if isinstance(device_map, Mapping):
        return Placement(_of_ranges(device_map.items(), n_layers))
    if isinstance(device_map, Sequence):
        if len(device_map) != n_layers:
            raise UnsuitableValue(
                f"the device map names {len(device_map)} devices, but the model has {n_layers} layers"
            )
        return Placement(tuple(_device(device) for device in device_map))
    raise InvalidType(
        f"a device map must be text, a mapping or a list, not {type(device_map).__name__}", hint=_EXAMPLE
    )


def check_device_map(text: str) -> None:
    """Raise InvalidValue for a text that is invalid for any number of layers."""
    if text.strip() in SPREADS:
        return
    ranges = []
    for layers, device in _read(text)[0]:
        ranges.append(_range(layers))
        _device(device)
    covered = 0
    for named in sorted(ranges, key=lambda layers: layers.start):
        if named.start < covered:
            raise InvalidValue(f"the device map names layer {named.start} twice", hint=_EXAMPLE)
        if named.start > covered:
            raise InvalidValue(f"the device map lacks layer {covered}", hint=_EXAMPLE)
        covered = named.stop


def _read(text: str) -> tuple[list[tuple[Any, Any]], list[torch.device]]:
    """Ranges with their devices, or devices alone."""
    if text.strip().startswith("{"):
        return _parsed_json(text), []
    parts = [part.strip() for part in text.split(",")]
    if all(_RANGE.match(part) is None for part in parts):
        return [], [_device(part) for part in parts]
    return [_split(part) for part in parts], []


def _parsed_json(text: str) -> list[tuple[Any, Any]]:
    try:
        values = json.loads(text)
    except ValueError as error:
        raise InvalidValue(f"the device map isn't valid JSON: {error}", hint=_EXAMPLE) from None
    if not values:
        raise InvalidValue("the device map is empty", hint=_EXAMPLE)
    return list(values.items())


def _split(part: str) -> tuple[str, str]:
    layers, colon, device = part.partition(":")
    if not colon or not device.strip():
        raise InvalidValue(f"{part.strip()!r} in the device map doesn't name a device", hint=_EXAMPLE)
    return layers, device


def _device(named: Any) -> torch.device:
    """A device by name; a number is that GPU's."""
    if isinstance(named, torch.device):
        return named
    if isinstance(named, bool) or not isinstance(named, (int, str)) or str(named).strip() in ("", "auto"):
        raise InvalidValue(f"{named!r} in the device map is not a device", hint=_EXAMPLE)
    name = f"cuda:{named}" if isinstance(named, int) else named.strip()
    if name in ("disk", "meta"):
        raise InvalidValue(
            f"layers can't be on {name!r}: the engine computes on a layer's device",
            hint="use a GPU or cpu, perhaps with --offload disk",
        )
    device = pick_device(name)
    return torch.device("cuda", 0) if device == torch.device("cuda") else device


def _range(layers: Any) -> range:
    match = _RANGE.fullmatch(str(layers))
    if match is None or isinstance(layers, bool):
        raise InvalidValue(
            f"{str(layers).strip()!r} in the device map is not a range of layers", hint=_EXAMPLE
        )
    first = int(match[1])
    last = first if match[2] is None else int(match[2])
    if last < first:
        raise InvalidValue(f"the range {first}-{last} in the device map is reversed", hint=f"{last}-{first}")
    return range(first, last + 1)


def _of_ranges(pairs: Iterable[tuple[Any, Any]], n_layers: int) -> tuple[torch.device, ...]:
    found: dict[int, torch.device] = {}
    for layers, named in pairs:
        covered, device = _range(layers), _device(named)
        for layer in covered:
            if layer >= n_layers:
                raise UnsuitableValue(
                    f"the device map names layer {layer}, but the model has layers 0 to {n_layers - 1}"
                )
            if layer in found:
                raise InvalidValue(f"the device map names layer {layer} twice")
            found[layer] = device
    missing = next((layer for layer in range(n_layers) if layer not in found), None)
    if missing is not None:
        raise UnsuitableValue(
            f"the device map lacks layer {missing}; the model has layers 0 to {n_layers - 1}",
            hint=_EXAMPLE,
        )
    return tuple(found[layer] for layer in range(n_layers))


def _evenly(devices: Sequence[torch.device], n_layers: int) -> tuple[torch.device, ...]:
    return tuple(devices[layer * len(devices) // n_layers] for layer in range(n_layers))


def _by_memory(n_layers: int) -> tuple[torch.device, ...]:
    """Layers in proportion to the free memory of all GPUs, in order."""
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if count < 2:
        return (default_device(),) * n_layers
    return by_shares([float(torch.cuda.mem_get_info(index)[0]) for index in range(count)], n_layers)


def by_shares(free: Sequence[float], n_layers: int) -> tuple[torch.device, ...]:
    """Consecutive layers on `cuda:0`, `cuda:1` …, in proportion to `free`, with a slightly smaller share for the first."""
    weights = [free[0] * HOME_SHARE, *free[1:]]
    total, edges = sum(weights), [0.0]
    for weight in weights:
        edges.append(edges[-1] + weight / total * n_layers)
    middle = [layer + 0.5 for layer in range(n_layers)]
    return tuple(
        torch.device("cuda", next(i for i in range(len(free)) if at < edges[i + 1] or i == len(free) - 1))
        for at in middle
    )
