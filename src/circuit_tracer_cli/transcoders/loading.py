"""Load a transcoder set from a reference: resolve, read the config, recognize the layout, check, load."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import torch

from circuit_tracer_cli.errors import BadTranscoders, InvalidValue, MissingFile, ModelMismatch
from circuit_tracer_cli.transcoders.base import Transcoders
from circuit_tracer_cli.transcoders.config import SetConfig, read_config, stated_l0
from circuit_tracer_cli.transcoders.converted import converted_folder, is_complete, read_manifest
from circuit_tracer_cli.transcoders.formats import recognise
from circuit_tracer_cli.transcoders.formats.base import Format, LoadOptions, SetShape, SetSource
from circuit_tracer_cli.transcoders.formats.reading import listed_files
from circuit_tracer_cli.transcoders.layers import LayeredTranscoders, TranscoderLayer
from circuit_tracer_cli.transcoders.references import HubReference, LocalReference, resolve
from circuit_tracer_cli.transcoders.remote import describe, download, here, is_here, skeleton
from circuit_tracer_cli.transcoders.training_config import check_beside, set_config
from circuit_tracer_cli.types import Progress

_SCANNED_BYTES = 2**28
"""Lazy decoders up to this size are checked for NaN on load; for larger ones, each row is checked when it is read."""


@dataclass(frozen=True, slots=True)
class InspectedTranscoders:
    """What is known about a set before weights are read."""

    folder: Path
    config: SetConfig
    shape: SetShape
    format: str
    commit: str | None = None  # commit on the hub, if the set comes from there


@dataclass(frozen=True, slots=True)
class LoadedTranscoders:
    """A set and its config."""

    transcoders: Transcoders
    config: SetConfig
    commit: str | None = None  # commit on the hub, if the set comes from there


def inspect_transcoders(reference: str | Path, *, progress: Progress | None = None) -> InspectedTranscoders:
    """Return config and shape of a set, after every check that needs no weights. Cheap: reads headers only.

    For a set on the hub that isn't downloaded yet, this fetches the config and the headers but no weights.

    Raises:
        UnknownReference: The reference is invalid, or the hub has no such repository.
        MissingFile: A file is missing or unreadable.
        BadTranscoders: Config or files are wrong; the message names the file and tensor.
        AccessDenied, HubUnavailable: The hub refused or can't be reached.
    """
    resolved = resolve(reference)
    if isinstance(resolved, LocalReference):
        return _inspect(local_source(resolved))
    cached = converted_source(resolved)
    if cached is not None:
        return _inspect(*cached)
    remote = describe(resolved, progress)
    if is_here(remote):
        return _inspect(here(remote), remote.commit)
    with skeleton(remote) as seen_from_outside:
        seen = _inspect(seen_from_outside.source, remote.commit)
    return dataclasses.replace(seen, folder=remote.folder, config=remote.config)


def load_transcoders(
    reference: str | Path,
    *,
    device: torch.device | str | Sequence[torch.device] | None = None,
    dtype: torch.dtype = torch.float32,
    lazy_encoder: bool = False,
    lazy_decoder: bool = True,
    progress: Progress | None = None,
    use_cache: bool = True,
) -> LoadedTranscoders:
    """Load the set of a reference: `demo`, `demo-clt`, `demo-plt`, a folder, or a repository on the hub.

    Args:
        reference: `gemma`, `llama`, `USER/REPO[/FOLDER][@REVISION]`, `hf://…`, the name of an embedded set, or a folder.
        device: Device of the rows, or one device per layer; default CPU.
        dtype: A floating-point type to cast all weights to.
        lazy_encoder: Leave the encoders in their files and read them layer by layer as needed.
        lazy_decoder: Leave the decoders in their files and read rows as needed.
        progress: Progress callback for downloads.
        use_cache: Load a set of the hub from the cache of converted sets, if it is there.

    Raises what `inspect_transcoders` raises, OutputError if a download doesn't fit on the disk, and
    BadTranscoders for weights that are NaN or infinite.
    """
    if not dtype.is_floating_point:
        raise InvalidValue(f"transcoders can't be loaded as {str(dtype).removeprefix('torch.')}")
    source, commit = open_source(reference, progress, use_cache=use_cache)
    if device is None or isinstance(device, torch.device | str):
        options = LoadOptions(torch.device(device or "cpu"), dtype, lazy_encoder, lazy_decoder)
    else:
        options = LoadOptions(device[0], dtype, lazy_encoder, lazy_decoder, tuple(device))
    return load_source(source, options, commit)


def load_source(source: SetSource, options: LoadOptions, commit: str | None = None) -> LoadedTranscoders:
    """Load a set from local files. Raises ModelMismatch if the options are for another number of layers."""
    _, loader = recognised(source)
    if options.devices and len(options.devices) != loader.shapes(source).n_layers:
        raise ModelMismatch(
            f"the device map is for {len(options.devices)} layers, but the set has {loader.shapes(source).n_layers}"
        )
    transcoders = loader.load(source, options)
    transcoders.stated_l0 = stated_l0(source.config)
    transcoders.normalized = source.config.normalized
    if options.lazy_decoder and sum(loader.shapes(source).decoder_bytes) <= _SCANNED_BYTES:
        for layer in cast("LayeredTranscoders[TranscoderLayer]", transcoders):
            layer.W_dec.require_finite()
    transcoders.commit = commit
    return LoadedTranscoders(transcoders, source.config, commit)


def open_source(
    reference: str | Path, progress: Progress | None = None, *, use_cache: bool = True
) -> tuple[SetSource, str | None]:
    """The set's files and their commit on the hub: converted ones if they exist, else downloaded if they are on the hub."""
    resolved = resolve(reference)
    if isinstance(resolved, LocalReference):
        return local_source(resolved), None
    cached = converted_source(resolved) if use_cache else None
    if cached is not None:
        return cached
    remote = describe(resolved, progress)
    return download(remote, progress), remote.commit


def converted_source(
    reference: HubReference, cache_dir: str | Path | None = None
) -> tuple[SetSource, str | None] | None:
    """The converted set of a reference and the commit that it was made from, if it is complete. Never uses the network."""
    folder = converted_folder(reference, cache_dir)
    if not is_complete(folder):
        return None
    manifest = read_manifest(folder)
    commit = None if manifest is None else manifest.commit
    return SetSource(folder, read_config(folder, reference.scan)), commit


def local_source(resolved: LocalReference) -> SetSource:
    """Return the set in a folder. Raises BadTranscoders for settings next to its files that would be ignored."""
    source = SetSource(resolved.folder, set_config(resolved.folder, resolved.default_scan))
    listed = listed_files(source)
    check_beside([resolved.folder / "weights"] if listed is None else listed.values())
    return source


def _inspect(source: SetSource, commit: str | None = None) -> InspectedTranscoders:
    name, loader = recognised(source)
    return InspectedTranscoders(source.folder, source.config, loader.shapes(source), name, commit)


def _check_sizes(source: SetSource, shape: SetShape) -> None:
    """Raise BadTranscoders if the configuration states other sizes than the files have."""
    stated = source.config.sizes
    for what, found in (
        ("d_model", shape.d_model),
        ("d_transcoder", shape.d_transcoder),
        ("n_layers", shape.n_layers),
    ):
        said = getattr(stated, what)
        if said is not None and said != found:
            raise BadTranscoders(
                f"the configuration of {source.folder} says {what} {said}, but its files have {found}"
            )


def recognised(source: SetSource) -> tuple[str, Format]:
    """The name and loader of the layout, which must be of the kind in the config."""
    try:
        name, loader = recognise(source)
    except PermissionError as error:
        raise MissingFile(f"{source.folder} can't be read: {error.strerror}") from None
    if source.config.kind != loader.KIND:
        raise BadTranscoders(
            f"config.yaml in {source.folder} describes a {source.config.kind} set, but its files are {name}",
            hint="correct model_kind: transcoder_set is per-layer, cross_layer_transcoder cross-layer",
        )
    _check_sizes(source, loader.shapes(source))
    return name, loader
