"""Converted sets on this computer: finding, checking and removing them. Imports no torch.

A set is at `root/user/repo[/folder][@revision]`; sets of subfolders are inside that of their repository. A folder is complete
once it contains `config.yaml`, which is written last. A manifest records the written files with checksums, and only those
are ever removed.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from circuit_tracer_cli.errors import BadTranscoders, OutputError
from circuit_tracer_cli.files.atomic import output_error, write_bytes
from circuit_tracer_cli.files.locations import cache_roots
from circuit_tracer_cli.files.locks import locked_file
from circuit_tracer_cli.transcoders.references import HubReference, LocalReference

MANIFEST = "circuit-tracer-cache.json"
CONFIG = "config.yaml"
_VERSION = 1
_LOCKS, _WORK = ".locks", ".unfinished"
_WRITTEN = re.compile(r"(layer_|W_enc_|W_dec_)\d+\.safetensors")
_UNFINISHED = re.compile(rf"\.((layer_|W_enc_|W_dec_)\d+\.safetensors|{re.escape(MANIFEST)}|{CONFIG})\..*")
_READ_BYTES = 2**20


@dataclass(frozen=True, slots=True)
class WrittenFile:
    """Size in bytes and checksum of one file."""

    size: int
    sha256: str


@dataclass(frozen=True, slots=True)
class Manifest:
    """What a converted folder was made from, and its finished files."""

    reference: str
    commit: str | None
    format: str
    dtype: str
    n_layers: int
    files: dict[str, WrittenFile] = dataclasses.field(default_factory=dict)

    def same_source(self, other: Manifest) -> bool:
        """True if both describe the same conversion, whatever its progress."""
        return dataclasses.replace(self, files={}) == dataclasses.replace(other, files={})


@dataclass(frozen=True, slots=True)
class ConvertedSet:
    """A folder in the cache. Without a manifest it was made by another program."""

    folder: Path
    reference: str
    complete: bool
    manifest: Manifest | None

    @property
    def size(self) -> int:
        """Size on disk in bytes."""
        return sum(path.stat().st_size for path in own_files(self.folder))


def converted_folder(reference: HubReference | LocalReference, cache_dir: str | Path | None = None) -> Path:
    """Return where the converted set of a reference is, or would be: in the first of `cache_roots` that has it."""
    if isinstance(reference, HubReference):
        name = reference.canonical
    else:
        name = f"local/{reference.folder.name}-{_digest(reference.folder)[:12]}"
    folders = [root / name for root in cache_roots(cache_dir)]
    return next((folder for folder in folders if (folder / CONFIG).is_file()), folders[0])


def root_of(folder: Path, cache_dir: str | Path | None = None) -> Path:
    """Return which of `cache_roots` the folder of a converted set belongs to."""
    roots = cache_roots(cache_dir)
    return next((root for root in roots if root in folder.parents), roots[0])


def is_complete(folder: Path) -> bool:
    """True if the folder has a complete set: its config, and every recorded file with its size."""
    if not (folder / CONFIG).is_file():
        return False
    manifest = read_manifest(folder)
    files = {} if manifest is None else manifest.files
    return all(_size(folder / name) == file.size for name, file in files.items())


def read_manifest(folder: Path) -> Manifest | None:
    """The folder's manifest; None without a readable one."""
    try:
        values = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        if values.pop("format_version") != _VERSION:
            return None
        files = {name: WrittenFile(**file) for name, file in values.pop("files").items()}
        return Manifest(files=files, **values)
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return None


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Write the folder's manifest, making the folder. Raises OutputError."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise output_error(folder, error) from None
    values = {"format_version": _VERSION, **dataclasses.asdict(manifest)}
    write_bytes(folder / MANIFEST, json.dumps(values, indent=1).encode())


def checksum(path: Path) -> WrittenFile:
    """Size and SHA-256 of a file."""
    digest, size = hashlib.sha256(), 0
    with path.open("rb") as file:
        while block := file.read(_READ_BYTES):
            digest.update(block)
            size += len(block)
    return WrittenFile(size, digest.hexdigest())


def damaged_files(folder: Path) -> list[str]:
    """The recorded files that are missing or have changed since they were written. Reads them all."""
    manifest = read_manifest(folder)
    if manifest is None:
        raise BadTranscoders(f"{folder} has no checksums: it was made by another program")
    return [
        name
        for name, file in manifest.files.items()
        if _size(folder / name) != file.size or checksum(folder / name) != file
    ]


def own_files(folder: Path) -> list[Path]:
    """The files of the set in this folder, including partly written ones; nothing else, and nothing in subfolders."""
    try:
        entries = [entry for entry in os.scandir(folder) if entry.is_file(follow_symlinks=False)]
    except OSError:
        return []
    named = {CONFIG, MANIFEST}
    return sorted(
        Path(entry.path)
        for entry in entries
        if entry.name in named or _WRITTEN.fullmatch(entry.name) or _UNFINISHED.fullmatch(entry.name)
    )


def sweep(folder: Path, keep: set[str]) -> None:
    """Remove the set's files except the named ones, the config first, so that no reader considers the rest complete."""
    paths = sorted(own_files(folder), key=lambda path: path.name != CONFIG)
    for path in paths:
        if path.name not in keep:
            path.unlink(missing_ok=True)


def remove(folder: Path, root: Path) -> int:
    """Remove the set in `folder`, and folders below `root` that become empty; return the freed bytes.

    Raises OutputError, without removing anything, if the folder isn't inside the root.
    """
    if root.resolve() not in folder.resolve().parents:
        raise OutputError(f"{folder} is outside the cache {root}, so it isn't removed")
    with locked(folder, root):
        freed = sum(path.stat().st_size for path in own_files(folder))
        try:
            sweep(folder, keep=set())
        except OSError as error:
            raise OutputError(f"{folder} can't be removed: {error.strerror or error}") from None
    for empty in (folder, *folder.parents):
        if empty == root:
            break
        with suppress(OSError):
            empty.rmdir()
    return freed


def converted_sets(root: Path) -> list[ConvertedSet]:
    """Every set below the root, whole or not, by name. Follows no links."""
    found = []
    for place, folders, names in os.walk(root, followlinks=False):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        folder = Path(place)
        manifest = read_manifest(folder) if MANIFEST in names else None
        foreign = CONFIG in names and any(_WRITTEN.fullmatch(name) for name in names)
        if folder != root and (MANIFEST in names or foreign):
            name = manifest.reference if manifest else folder.relative_to(root).as_posix()
            found.append(ConvertedSet(folder, name, is_complete(folder), manifest))
    return sorted(found, key=lambda one: one.reference)


@contextmanager
def locked(folder: Path, root: Path) -> Iterator[None]:
    """Nobody else writes or removes the set in this folder meanwhile. Waits for whoever does."""
    lock = root / _LOCKS / f"{_digest(folder)}.lock"
    try:
        lock.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(
            f"the cache {root} can't be written: {error.strerror or error}",
            hint="set CIRCUIT_TRACER_CACHE_DIR to another folder",
        ) from None
    with locked_file(lock):
        yield


@contextmanager
def workspace(folder: Path, root: Path) -> Iterator[Path]:
    """A folder for what is needed while this set is written; to be asked for when locked. Clears what a killed run left."""
    place = root / _WORK / _digest(folder)
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir(parents=True)
    try:
        yield place
    finally:
        shutil.rmtree(place, ignore_errors=True)
        with suppress(OSError):
            place.parent.rmdir()


def _digest(folder: Path) -> str:
    return hashlib.sha256(str(folder.resolve()).encode()).hexdigest()[:24]


def _size(path: Path) -> int | None:
    try:
        return path.stat().st_size
    except OSError:
        return None
