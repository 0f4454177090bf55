"""A transcoder set on the hub: described by its config, inspected through its headers, downloaded when needed."""

from __future__ import annotations

import dataclasses
import re
import shutil
import tempfile
import zipfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from circuit_tracer_cli import hub
from circuit_tracer_cli.errors import BadTranscoders, HubUnavailable, MissingFile
from circuit_tracer_cli.files.tensors import MAX_HEADER, TensorFile
from circuit_tracer_cli.hub import Snapshot
from circuit_tracer_cli.transcoders.config import SetConfig, parse_config
from circuit_tracer_cli.transcoders.formats.base import SetSource
from circuit_tracer_cli.transcoders.known import CONFIGS, KNOWN_SETS
from circuit_tracer_cli.transcoders.references import HubReference, hub_uri, nearest_known
from circuit_tracer_cli.transcoders.training_config import CONFIG_NAMES, check_beside, set_config
from circuit_tracer_cli.types import Progress, SilentProgress

_WEIGHTS = {".safetensors", ".npz"}
_FIRST_BYTES = 2**16  # usually a full header; a second request costs more than some extra bytes
_MEMBER_BYTES = 2**10
_TINY_BYTES = 8  # size of a tensor that is a setting, such as k
_AUTOENCODER = re.compile(r"(?i)(?:^|[/._-])saes?(?:[/._-]|\d|$)")
_LARGEST_CONFIG = 2**20
_IN_EVERY_REPOSITORY = ".gitattributes"  # small; requesting it shows early whether a repository is accessible


@dataclass(frozen=True, slots=True)
class RemoteFile:
    """One weight file."""

    repo_id: str
    commit: str
    path: str
    size: int


@dataclass(frozen=True, slots=True)
class RemoteSet:
    """What is known of a set once its config is downloaded. `snapshots` are the repositories of its files."""

    reference: HubReference
    folder: Path  # folder of its config
    config: SetConfig
    files: tuple[RemoteFile, ...]
    snapshots: tuple[tuple[str, Snapshot], ...]

    @property
    def commit(self) -> str:
        """The commit of the repository that was named."""
        return self.snapshots[0][1].commit

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(file.size for file in self.files)

    def files_of_layer(self, layer: int) -> list[RemoteFile]:
        """The files with the weights of one layer."""
        if self.config.transcoders is not None:
            layers = self.config.layers or range(len(self.files))
            return [file for number, file in zip(layers, self.files, strict=True) if number == layer]
        numbers = (re.search(r"_(\d+)$", PurePosixPath(file.path).stem) for file in self.files)
        return [
            file
            for file, number in zip(self.files, numbers, strict=True)
            if number and int(number[1]) == layer
        ]

    def local_path(self, file: RemoteFile) -> Path:
        """The file's path once it is downloaded."""
        return next(found.folder for repo, found in self.snapshots if _is_in(file, repo, found)) / file.path


@dataclass(frozen=True, slots=True)
class Skeleton:
    """A set whose files are only stubs with headers, and the folder of the stubs."""

    remote: RemoteSet
    source: SetSource
    stubs: dict[RemoteFile, Path]

    @contextmanager
    def with_layer(self, layer: int, *, keep_downloads: bool) -> Iterator[SetSource]:
        """The set with the files of one layer in place of their stubs, downloaded if necessary."""
        files = self.remote.files_of_layer(layer)
        fetched = [file for file in files if not self.remote.local_path(file).is_file()]
        download(self.remote, only=files)
        aside = {file: self.stubs[file].with_name(self.stubs[file].name + ".stub") for file in files}
        for file in files:
            self.stubs[file].rename(aside[file])
            self.stubs[file].symlink_to(self.remote.local_path(file))
        yield self.source
        for file in files:
            aside[file].replace(self.stubs[file])
            if file in fetched and not keep_downloads:
                hub.forget(file.repo_id, self.remote.local_path(file))


def describe(reference: HubReference, progress: Progress | None = None) -> RemoteSet:
    """The set's config and list of files; only the config is downloaded.

    Raises:
        MissingFile: The folder has no config, or a file that the config lists is missing.
        BadTranscoders: The config is wrong.
        CircuitTracerError: Whatever `hub.snapshot` raises.
    """
    progress = progress or SilentProgress()
    config_path = str(PurePosixPath(reference.path) / "config.yaml")
    found = _snapshot(reference, config_path, progress)
    folder = found.folder / reference.path
    sizes = hub.file_sizes(reference.repo_id, found)
    if not (folder / "config.yaml").is_file():
        _fetch_training_configs(reference, found, sizes, progress)
    config = _config(reference, folder, sizes)
    if config.transcoders is None:
        _check_beside(reference.repo_id, found, sizes, [f"{reference.path}/weights".lstrip("/")], progress)
        names = [path for path in sizes if _is_weight(path, reference.path)]
        files = [RemoteFile(reference.repo_id, found.commit, name, sizes[name]) for name in names]
        return RemoteSet(reference, folder, config, tuple(files), ((reference.repo_id, found),))
    return _listed(reference, folder, config, found, progress)


def download(
    remote: RemoteSet, progress: Progress | None = None, only: Sequence[RemoteFile] | None = None
) -> SetSource:
    """Download the set's files, or `only` some of them.

    Raises what `hub.snapshot` raises, and OutputError at the beginning if they don't fit.
    """
    progress = progress or SilentProgress()
    wanted = remote.files if only is None else only
    missing = sum(file.size for file in wanted if not remote.local_path(file).is_file())
    if missing and not hub.is_offline():
        hub.require_space(missing, hub.cache_folder())
        progress.phase(f"downloading {remote.reference.canonical} (MiB)", missing >> 20)
    for repo, found in remote.snapshots:
        paths = [file.path for file in wanted if _is_in(file, repo, found)]
        if paths:
            hub.snapshot(repo, found.commit, paths, progress)
    return here(remote)


def is_here(remote: RemoteSet) -> bool:
    """True if every file is downloaded."""
    return all(remote.local_path(file).is_file() for file in remote.files)


def here(remote: RemoteSet) -> SetSource:
    """The downloaded set."""
    config = remote.config
    if config.transcoders is not None:
        paths = tuple(str(remote.local_path(file)) for file in remote.files)
        config = dataclasses.replace(config, transcoders=paths)
    return SetSource(remote.folder, config)


@contextmanager
def skeleton(remote: RemoteSet, parent: Path | None = None) -> Iterator[Skeleton]:
    """Yield the set as stub files that contain only headers, fetched by range requests; removed on exit.

    They are as long as the real files but take no disk space; they are in `parent`, else among temporary files.
    Errors about them name the files on the hub.
    """
    root = Path(tempfile.mkdtemp(prefix="circuit-tracer-headers-", dir=parent))
    try:
        stubs = {file: root / file.repo_id / file.path for file in remote.files}
        targets = list(stubs.values())
        with ThreadPoolExecutor(max_workers=8) as pool:
            list(pool.map(_fetch_header, remote.files, targets))
        config = remote.config
        if config.transcoders is not None:
            config = dataclasses.replace(config, transcoders=tuple(map(str, targets)))
        folder = root / remote.reference.repo_id / remote.reference.path
        folder.mkdir(parents=True, exist_ok=True)
        yield Skeleton(remote, SetSource(folder, config), stubs)
    except BadTranscoders as error:
        raise type(error)(error.message.replace(f"{root}/", ""), error.hint) from None
    finally:
        shutil.rmtree(root, ignore_errors=True)


def _is_in(file: RemoteFile, repo: str, found: Snapshot) -> bool:
    return (file.repo_id, file.commit) == (repo, found.commit)


def _is_weight(path: str, folder: str) -> bool:
    place = PurePosixPath(path)
    return place.suffix in _WEIGHTS and place.parent == PurePosixPath(folder)


def _snapshot(reference: HubReference, path: str, progress: Progress) -> Snapshot:
    try:
        return hub.snapshot(reference.repo_id, reference.revision, [path], progress)
    except (MissingFile, HubUnavailable) as error:
        near = nearest_known(reference.canonical)
        if near is None or reference.canonical in {one.reference for one in KNOWN_SETS}:
            raise
        before = "" if isinstance(error, MissingFile) else f"{error.hint}; or "
        raise type(error)(error.message, f"{before}did you mean {near}?") from error


def _fetch_training_configs(
    reference: HubReference, found: Snapshot, sizes: dict[str, int], progress: Progress
) -> None:
    """The `cfg.json` of each layer, if the set has no config of its own."""
    places = (PurePosixPath(path) for path in sizes if PurePosixPath(path).name in CONFIG_NAMES)
    folder = PurePosixPath(reference.path)
    near = [str(place) for place in places if folder in {place.parent, place.parent.parent}]
    if any(PurePosixPath(path).parent != folder for path in near):
        hub.snapshot(reference.repo_id, found.commit, near, progress)


def _check_beside(
    repo_id: str, found: Snapshot, sizes: dict[str, int], weights: Sequence[str], progress: Progress
) -> None:
    """Check the configurations that a trainer wrote next to weight files of a repository; fetches those small files."""
    beside = {str(PurePosixPath(path).parent / name) for path in weights for name in CONFIG_NAMES}
    wanted = sorted(path for path in beside if 0 < sizes.get(path, 0) <= _LARGEST_CONFIG)
    if wanted:
        hub.snapshot(repo_id, found.commit, wanted, progress)
    check_beside(found.folder / path for path in weights)


def _config(reference: HubReference, folder: Path, sizes: dict[str, int]) -> SetConfig:
    """Return the set's config: its own, else that of its layers, else the known one of a published set without one."""
    known = None if reference.path else CONFIGS.get(reference.repo_id)
    if known is not None and not (folder / "config.yaml").exists():
        return parse_config(known | {"scan": reference.scan}, folder / "config.yaml", reference.scan)
    return set_config(folder, reference.scan, scan=reference.scan, absent=_no_config(reference, sizes))


def _no_config(reference: HubReference, sizes: dict[str, int]) -> MissingFile:
    below = f"{reference.path}/" if reference.path else ""
    folders = [str(PurePosixPath(path).parent) for path in sizes if path.endswith("/config.yaml")]
    inside = sorted(folder for folder in folders if folder.startswith(below)) or sorted(folders)
    message = f"{reference.canonical} is not a transcoder set: it has no config.yaml"
    if not inside and any(_AUTOENCODER.search(name) for name in (reference.repo_id, *sizes)):
        return MissingFile(
            f"{message}; its files look like sparse autoencoders (SAEs), not transcoders",
            hint="a graph needs transcoders; circuit-tracer cache list --known shows sets",
        )
    if not inside:
        return MissingFile(message, hint="circuit-tracer cache list --known shows sets that are")
    suffix = f"@{reference.revision}" if reference.revision else ""
    shown = [f"{reference.repo_id}/{folder}{suffix}" for folder in inside[:2]]
    more = f", or one of {len(inside) - 2} more" if len(inside) > 2 else ""
    return MissingFile(message, hint=f"name one of its folders, such as {' or '.join(shown)}{more}")


def _listed(
    reference: HubReference, folder: Path, config: SetConfig, found: Snapshot, progress: Progress
) -> RemoteSet:
    """The set whose config lists its files, in any repositories."""
    places = [_place(entry, reference) for entry in config.transcoders or ()]
    snapshots = {(reference.repo_id, reference.revision): found}
    for place in places:
        if (place.repo_id, place.revision) not in snapshots:
            snapshots[place.repo_id, place.revision] = _snapshot(place, _IN_EVERY_REPOSITORY, progress)
    sizes = {key: hub.file_sizes(key[0], snapshot) for key, snapshot in snapshots.items()}
    files = []
    for place in places:
        key = (place.repo_id, place.revision)
        if place.path not in sizes[key]:
            raise MissingFile(
                f"{reference.canonical} lists {place.path}, which {place.repo_id} doesn't contain"
            )
        files.append(RemoteFile(place.repo_id, snapshots[key].commit, place.path, sizes[key][place.path]))
    for key, snapshot in snapshots.items():
        inside = [place.path for place in places if (place.repo_id, place.revision) == key]
        _check_beside(key[0], snapshot, sizes[key], inside, progress)
    pairs = tuple((repo, snapshot) for (repo, _), snapshot in snapshots.items())
    return RemoteSet(reference, folder, config, tuple(files), pairs)


def _place(entry: str, reference: HubReference) -> HubReference:
    if entry.startswith("hf://"):
        return hub_uri(entry)
    path = PurePosixPath(reference.path) / entry
    if path.is_absolute() or ".." in path.parts:
        raise BadTranscoders(
            f"{reference.canonical}/config.yaml lists {entry}, which is outside the set's folder"
        )
    return HubReference(reference.repo_id, str(path), reference.revision)


def _fetch_header(file: RemoteFile, target: Path) -> None:
    """A file of the right length with only the header filled in."""
    target.parent.mkdir(parents=True, exist_ok=True)
    target.touch()
    with target.open("r+b") as stub:
        stub.truncate(file.size)
    if target.suffix == ".npz":
        _copy_range(file, target, max(0, file.size - _FIRST_BYTES), _FIRST_BYTES)
        for offset in _member_offsets(target, file):
            _copy_range(file, target, offset, _MEMBER_BYTES)
    else:
        _copy_range(file, target, 0, _FIRST_BYTES)
        with target.open("rb") as stub:
            length = int.from_bytes(stub.read(8), "little")
        if length + 8 > _FIRST_BYTES and length + 8 <= min(file.size, MAX_HEADER):
            _copy_range(file, target, _FIRST_BYTES, length + 8 - _FIRST_BYTES)
        for stored in TensorFile(target).tensors.values():
            if stored.nbytes <= _TINY_BYTES and stored.stop > _FIRST_BYTES:
                _copy_range(file, target, stored.start, stored.nbytes)


def _copy_range(file: RemoteFile, target: Path, start: int, count: int) -> None:
    count = min(count, file.size - start)
    if count <= 0:
        return
    body = hub.read_range(file.repo_id, file.commit, file.path, start, count)
    with target.open("r+b") as stub:
        stub.seek(start)
        stub.write(body)


def _member_offsets(target: Path, file: RemoteFile) -> Sequence[int]:
    try:
        with zipfile.ZipFile(target) as archive:
            return [member.header_offset for member in archive.infolist()]
    except zipfile.BadZipFile:
        raise BadTranscoders(f"{file.repo_id}/{file.path} is not an npz file") from None
