"""Write a set in the standard layout, one layer at a time, so that an interrupted conversion can be resumed."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any, cast

import torch
import yaml

from circuit_tracer_cli import hub
from circuit_tracer_cli.files.atomic import write_bytes
from circuit_tracer_cli.transcoders import converted
from circuit_tracer_cli.transcoders.base import Kind
from circuit_tracer_cli.transcoders.config import SetConfig
from circuit_tracer_cli.transcoders.converted import Manifest
from circuit_tracer_cli.transcoders.formats.base import Format, LoadOptions, SetSource
from circuit_tracer_cli.transcoders.layers import LayeredTranscoders
from circuit_tracer_cli.transcoders.loading import local_source, recognised
from circuit_tracer_cli.transcoders.references import HubReference, LocalReference
from circuit_tracer_cli.transcoders.remote import RemoteSet, describe, download, here, is_here, skeleton
from circuit_tracer_cli.types import Progress

_KIND_NAMES: dict[Kind, str] = {"plt": "transcoder_set", "clt": "cross_layer_transcoder"}


@dataclasses.dataclass(frozen=True, slots=True)
class ConvertOptions:
    """How a set is converted.

    Args:
        dtype: Type to cast weights to; None keeps the stored type.
        sequential: Download a layer, convert it, and go on to the next, instead of downloading all of them first.
        keep_downloads: Keep the downloaded files in the hub's cache. Files that were there before always stay.
    """

    dtype: torch.dtype | None = None
    sequential: bool = True
    keep_downloads: bool = False


@dataclasses.dataclass(frozen=True, slots=True)
class _Origin:
    """The set to convert: its headers, its commit, and a way to download the weights of one layer temporarily."""

    source: SetSource
    commit: str | None
    with_layer: Callable[[int], AbstractContextManager[SetSource]]


def convert(
    reference: HubReference | LocalReference,
    root: Path,
    folder: Path,
    options: ConvertOptions,
    progress: Progress,
) -> None:
    """Write the set of a reference to `folder` in the standard layout. Does nothing if it is up to date.

    Raises what `load_transcoders` raises, and OutputError.
    """
    with (
        converted.locked(folder, root),
        converted.workspace(folder, root) as work,
        _origin(reference, work, options, progress) as origin,
    ):
        name, loader = recognised(origin.source)
        shape = loader.shapes(origin.source)
        dtype = options.dtype or shape.stored_dtype
        wanted = Manifest(
            reference=reference.canonical if isinstance(reference, HubReference) else str(reference.folder),
            commit=origin.commit,
            format=name,
            dtype=str(dtype).removeprefix("torch."),
            n_layers=shape.n_layers,
        )
        done = _begin(folder, wanted)
        if done is None:
            return
        stored = sum(shape.encoder_bytes) + sum(shape.decoder_bytes)
        written = sum(file.size for file in done.files.values())
        hub.require_space(stored * dtype.itemsize // shape.stored_dtype.itemsize - written, folder)
        progress.phase(f"converting {wanted.reference}", len(shape.present))
        for layer in shape.present:
            if not done.files.keys() >= set(_file_names(shape.kind, layer)):
                done = _convert_layer(origin, loader, layer, dtype, work, folder, done)
            progress.advance()
        write_bytes(folder / converted.CONFIG, _config(origin.source.config).encode())


def _begin(folder: Path, wanted: Manifest) -> Manifest | None:
    """Return an unfinished conversion to continue, or None if it is complete. Removes files of another conversion."""
    found = converted.read_manifest(folder)
    same = found is not None and found.same_source(wanted)
    if same and converted.is_complete(folder):
        return None
    kept = found.files if found is not None and same else {}
    kept = {name: file for name, file in kept.items() if _has_size(folder / name, file.size)}
    converted.sweep(folder, keep={*kept, converted.MANIFEST})
    begun = dataclasses.replace(wanted, files=kept)
    converted.write_manifest(folder, begun)
    return begun


def _has_size(path: Path, size: int) -> bool:
    return path.is_file() and path.stat().st_size == size


def _convert_layer(
    origin: _Origin, loader: Format, layer: int, dtype: torch.dtype, work: Path, folder: Path, done: Manifest
) -> Manifest:
    """Write a layer's files to a temporary place, so that a killed run leaves no trace, and then move them."""
    options = LoadOptions(torch.device("cpu"), dtype, lazy_encoder=True, lazy_decoder=True)
    with origin.with_layer(layer) as source:
        loaded = cast("LayeredTranscoders[Any]", loader.load(source, options))
        loaded.write_layer(work, layer)
    files = {name: converted.checksum(work / name) for name in _file_names(loaded.kind, layer)}
    for name in files:
        (work / name).replace(folder / name)
    done = dataclasses.replace(done, files={**done.files, **files})
    converted.write_manifest(folder, done)
    return done


def _file_names(kind: Kind, layer: int) -> tuple[str, ...]:
    stems = ("layer_",) if kind == "plt" else ("W_enc_", "W_dec_")
    return tuple(f"{stem}{layer}.safetensors" for stem in stems)


def _config(config: SetConfig) -> str:
    """The text of `config.yaml`: the set's own, without file locations."""
    values = {
        "model_kind": _KIND_NAMES[config.kind],
        "model_name": config.model_name,
        "feature_input_hook": config.feature_input_hook,
        "feature_output_hook": config.feature_output_hook,
        "scan": config.scan,
        "activation": config.activation,
        "k": config.k,
    }
    return yaml.safe_dump({key: value for key, value in values.items() if value is not None}, sort_keys=False)


@contextmanager
def _origin(
    reference: HubReference | LocalReference, work: Path, options: ConvertOptions, progress: Progress
) -> Iterator[_Origin]:
    if isinstance(reference, LocalReference):
        source = local_source(reference)
        yield _Origin(source, None, lambda layer: nullcontext(source))
        return
    remote = describe(reference, progress)
    if is_here(remote):
        yield _Origin(here(remote), remote.commit, lambda layer: nullcontext(here(remote)))
    elif options.sequential:
        with skeleton(remote, work) as outline:
            yield _Origin(
                outline.source,
                remote.commit,
                lambda layer: outline.with_layer(layer, keep_downloads=options.keep_downloads),
            )
    else:
        yield from _downloaded(remote, options, progress)


def _downloaded(remote: RemoteSet, options: ConvertOptions, progress: Progress) -> Iterator[_Origin]:
    """Download all files at once; downloaded files are removed afterwards."""
    fetched = [file for file in remote.files if not remote.local_path(file).is_file()]
    source = download(remote, progress)
    yield _Origin(source, remote.commit, lambda layer: nullcontext(source))
    for file in fetched:
        if not options.keep_downloads:
            hub.forget(file.repo_id, remote.local_path(file))
