"""From a reference to a transcoder set: resolve, read the config, recognise the layout, check, load."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch

from circuit_tracer_cli.errors import BadTranscoders, InvalidValue, MissingFile
from circuit_tracer_cli.transcoders.base import Transcoders
from circuit_tracer_cli.transcoders.config import SetConfig, read_config
from circuit_tracer_cli.transcoders.formats import recognise
from circuit_tracer_cli.transcoders.formats.base import Format, LoadOptions, SetShape, SetSource
from circuit_tracer_cli.transcoders.references import resolve


@dataclass(frozen=True, slots=True)
class InspectedTranscoders:
    """What is known about a set before any weight is read."""

    folder: Path
    config: SetConfig
    shape: SetShape
    format: str


@dataclass(frozen=True, slots=True)
class LoadedTranscoders:
    """A set and its config."""

    transcoders: Transcoders
    config: SetConfig


def inspect_transcoders(reference: str | Path) -> InspectedTranscoders:
    """Config and shape of a set, with every check that needs no weights. Cheap: reads headers only.

    Raises:
        UnknownReference: The reference means nothing.
        MissingFile: A file isn't there or can't be read.
        BadTranscoders: Config or files are wrong; the message names the file and tensor.
    """
    source, name, loader = _source(reference)
    return InspectedTranscoders(source.folder, source.config, loader.shapes(source), name)


def load_transcoders(
    reference: str | Path,
    *,
    device: torch.device | str | None = None,
    dtype: torch.dtype = torch.float32,
    lazy_encoder: bool = False,
    lazy_decoder: bool = True,
) -> LoadedTranscoders:
    """The set behind a reference: `demo`, `demo-clt`, `demo-plt`, or a folder in the standard layout.

    Args:
        reference: Name or folder.
        device: Where rows are delivered; the CPU if it isn't given.
        dtype: A floating-point type to which all weights are cast.
        lazy_encoder: Leave the encoders in their files and read them layer by layer when they are used.
        lazy_decoder: Leave the decoders in their files and read the rows that are asked for.

    Raises what `inspect_transcoders` raises, and BadTranscoders for weights that are NaN or infinite.
    """
    if not dtype.is_floating_point:
        raise InvalidValue(f"transcoders can't be loaded as {str(dtype).removeprefix('torch.')}")
    source, _, loader = _source(reference)
    options = LoadOptions(torch.device(device or "cpu"), dtype, lazy_encoder, lazy_decoder)
    return LoadedTranscoders(loader.load(source, options), source.config)


def _source(reference: str | Path) -> tuple[SetSource, str, Format]:
    resolved = resolve(reference)
    config = read_config(resolved.folder, resolved.default_scan)
    source = SetSource(resolved.folder, config)
    try:
        name, loader = recognise(source)
    except PermissionError as error:
        raise MissingFile(f"{resolved.folder} can't be read: {error.strerror}") from None
    if config.kind != loader.KIND:
        raise BadTranscoders(
            f"config.yaml in {resolved.folder} describes a {config.kind} set, but its files are {name}",
            hint="correct model_kind: transcoder_set is per-layer, cross_layer_transcoder cross-layer",
        )
    return source, name, loader
