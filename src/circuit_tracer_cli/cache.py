"""Transcoder sets converted to the standard layout and kept on this computer: the public functions.

Later calls that name a converted set of the hub use it without a network. Only files that the conversion wrote are ever
removed, wherever the cache folder is.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from circuit_tracer_cli.errors import MissingFile
from circuit_tracer_cli.files.locations import cache_root, cache_roots
from circuit_tracer_cli.transcoders import converted
from circuit_tracer_cli.transcoders.converted import ConvertedSet
from circuit_tracer_cli.transcoders.references import HubReference, resolve
from circuit_tracer_cli.types import Progress, SilentProgress

if TYPE_CHECKING:
    import torch

    from circuit_tracer_cli.transcoders.base import Transcoders
    from circuit_tracer_cli.transcoders.config import SetConfig


def get_cache_dir(cache_dir: str | Path | None = None) -> Path:
    """Return `cache_dir`, else `CIRCUIT_TRACER_CACHE_DIR`, else `circuit_tracer` in the user's cache folder."""
    return cache_root(cache_dir)


def get_cached_path(hf_ref: str | Path, cache_dir: str | Path | None = None) -> Path:
    """Return where the converted set of a reference is or would be. Raises UnknownReference for an invalid reference."""
    return converted.converted_folder(resolve(hf_ref), cache_dir)


def is_cached(hf_ref: str | Path, cache_dir: str | Path | None = None) -> bool:
    """True if the converted set of a reference exists and is complete."""
    return converted.is_complete(get_cached_path(hf_ref, cache_dir))


def cached_sets(cache_dir: str | Path | None = None) -> list[ConvertedSet]:
    """Return every set in the cache, complete or interrupted, including those in the folder of earlier versions."""
    return [found for root in cache_roots(cache_dir) for found in converted.converted_sets(root)]


def find_cached(hf_ref: str | Path, cache_dir: str | Path | None = None) -> ConvertedSet:
    """Return the set of a reference in the cache, complete or interrupted. Raises MissingFile."""
    folder = get_cached_path(hf_ref, cache_dir)
    for one in cached_sets(cache_dir):
        if one.folder == folder:
            return one
    raise MissingFile(f"{hf_ref} isn't in the cache", hint=f"circuit-tracer cache add {hf_ref}")


def save_transcoders_to_cache(
    hf_ref: str | Path,
    cache_dir: str | Path | None = None,
    sequential: bool = True,
    device: torch.device | str | None = None,
    dtype: torch.dtype | None = None,
    delete_hf_cache: bool = True,
    *,
    progress: Progress | None = None,
) -> Path:
    """Convert a set to the standard layout, layer by layer, and return its folder.

    Continues an interrupted conversion; makes a new one if the hub has a newer commit; else does nothing.

    Args:
        hf_ref: Any reference that `load_transcoders` takes.
        cache_dir: The cache folder, if it isn't the default one.
        sequential: Download and convert layer by layer; else download everything first, in parallel.
        device: Unused; accepted for calls written for the reference.
        dtype: Type to cast weights to; None keeps the stored type.
        delete_hf_cache: Afterwards remove the files downloaded for this from the hub's cache.
        progress: Progress callback for downloads and layers.

    Raises:
        OutputError: The disk is full, or the folder can't be written.
        CircuitTracerError: Whatever loading the set raises.
    """
    from circuit_tracer_cli.transcoders.convert import ConvertOptions, convert

    reference = resolve(hf_ref)
    folder = converted.converted_folder(reference, cache_dir)
    root = converted.root_of(folder, cache_dir)
    options = ConvertOptions(dtype, sequential, keep_downloads=not delete_hf_cache)
    convert(reference, root, folder, options, progress or SilentProgress())
    return folder


def load_transcoders_from_cache(
    hf_ref: str | Path,
    cache_dir: str | Path | None = None,
    device: torch.device | str | None = None,
    dtype: torch.dtype | None = None,
    lazy_encoder: bool = False,
    lazy_decoder: bool = True,
) -> tuple[Transcoders, SetConfig]:
    """Return a converted set and its config; a folder that was never converted is loaded as it is. Never uses the network.

    Args:
        hf_ref: Any reference that `load_transcoders` takes.
        cache_dir: The cache folder, if it isn't the default one.
        device: Device of the rows; default CPU.
        dtype: Type to cast weights to; default float32.
        lazy_encoder: Read encoders from their files as needed.
        lazy_decoder: Read decoders from their files as needed.

    Raises MissingFile if the set isn't in the cache.
    """
    import torch

    from circuit_tracer_cli.transcoders.loading import load_transcoders

    reference, folder = resolve(hf_ref), get_cached_path(hf_ref, cache_dir)
    if not converted.is_complete(folder):
        if isinstance(reference, HubReference):
            raise MissingFile(f"{hf_ref} isn't in the cache", hint=f"circuit-tracer cache add {hf_ref}")
        folder = reference.folder
    loaded = load_transcoders(
        folder,
        device=device,
        dtype=dtype or torch.float32,
        lazy_encoder=lazy_encoder,
        lazy_decoder=lazy_decoder,
    )
    return loaded.transcoders, loaded.config


def empty_cache(hf_ref: str | Path | None = None, cache_dir: str | Path | None = None) -> int:
    """Remove the converted set of a reference, or all converted sets, and return the freed bytes.

    Removes only what a conversion wrote: other files and folders in the cache stay, and so do your own sets.
    """
    if hf_ref is not None:
        folder = get_cached_path(hf_ref, cache_dir)
        return (
            converted.remove(folder, converted.root_of(folder, cache_dir))
            if converted.own_files(folder)
            else 0
        )
    return sum(
        converted.remove(one.folder, converted.root_of(one.folder, cache_dir))
        for one in cached_sets(cache_dir)
        if one.manifest is not None
    )


__all__ = [
    "ConvertedSet",
    "cached_sets",
    "empty_cache",
    "find_cached",
    "get_cache_dir",
    "get_cached_path",
    "is_cached",
    "load_transcoders_from_cache",
    "save_transcoders_to_cache",
]
