"""Short names for the content of a model or a transcoder set: equal files, equal name. Reads headers and sizes, not gigabytes."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path

from circuit_tracer_cli.backends.model_source import ModelSource
from circuit_tracer_cli.hub import commit_of
from circuit_tracer_cli.prepare import Setup
from circuit_tracer_cli.request import offline_mode

_WHOLE_UP_TO = 1 << 22
_SAMPLES, _SAMPLE = 16, 1 << 16


def content_ids(setup: Setup, *, offline: bool = False) -> dict[str, str]:
    """Return names for the content of a model and a set: `model` and `set`.

    For files on the hub, repository and commit stand for the content.

    Args:
        setup: The model and the set.
        offline: Use only local files, as the request asks, even if the process may use the network.

    Raises:
        CircuitTracerError: The commit of a model on the hub can't be determined.
    """
    assert setup.described is not None
    described, source = setup.described, setup.model
    with offline_mode(offline):
        model = folder_id(source.folder) if source.folder is not None else _of_hub(source)
    if described.format == "neurons":
        return {"model": model, "set": str(described.config.scan)}
    if described.commit:
        return {"model": model, "set": f"{described.config.scan} commit {described.commit}"}
    return {"model": model, "set": folder_id(described.folder)}


def _of_hub(source: ModelSource) -> str:
    """The repository and its commit; uses the network only for missing files."""
    return f"{source.name} commit {commit_of(source.name, source.revision)}"


def folder_id(folder: Path) -> str:
    """A hash (16 hexadecimal digits) of the names, sizes and bytes of all files of a folder; large files are sampled."""
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        if not path.is_file() or any(part.startswith(".") for part in path.relative_to(folder).parts):
            continue
        size = path.stat().st_size
        digest.update(f"{path.relative_to(folder).as_posix()}\0{size}\0".encode("utf-8", "surrogateescape"))
        with path.open("rb") as stream:
            for start, length in _parts(size):
                stream.seek(start)
                digest.update(stream.read(length))
    return digest.hexdigest()[:16]


def _parts(size: int) -> Iterable[tuple[int, int]]:
    """Where to read: all of a small file; for a large one, its beginning (with the header) and samples throughout."""
    if size <= _WHOLE_UP_TO:
        return [(0, size)]
    step = (size - _SAMPLE) // (_SAMPLES - 1)
    return [(0, 1 << 20), *((number * step, _SAMPLE) for number in range(1, _SAMPLES))]
