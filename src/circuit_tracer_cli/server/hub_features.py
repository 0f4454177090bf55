"""Feature examples of a set on the hub: its index, and one record at a time, each fetched once and kept on the disk.

The address is the hub's, always; a graph file can only name a repository there.
"""

from __future__ import annotations

import re
import threading
from pathlib import Path
from typing import Any

from circuit_tracer_cli import hub
from circuit_tracer_cli.errors import BadFeatureFiles, MissingFile
from circuit_tracer_cli.features.pack import INDEX
from circuit_tracer_cli.features.read import FeatureFiles, unpack_record
from circuit_tracer_cli.files.atomic import write_bytes
from circuit_tracer_cli.types import SilentProgress

_PLAIN_NAME = re.compile(r"[A-Za-z0-9_][\w.-]*\Z")
_MAX_RECORD = 64 << 20


class HubFeatures:
    """The examples in the folder `features` of a set on the hub. Every method may wait for the network.

    Args:
        repo_id: The repository.
        path: The set's folder in it, without slashes at its ends.
        revision: Branch, tag or commit; None for the main branch.
        cache: Where records are kept.
    """

    def __init__(self, repo_id: str, path: str, revision: str | None, cache: Path) -> None:
        self._repo_id, self._revision, self._cache = repo_id, revision, cache
        self._folder = f"{path}/features" if path else "features"
        self._files: tuple[str, FeatureFiles] | None = None
        self._lock = threading.Lock()

    def record(self, layer: int, feature: int) -> dict[str, Any] | None:
        """What is known of a feature; None if the set holds nothing about it.

        Raises:
            MissingFile: The set has no examples.
            BadFeatureFiles: Index or record can't be read.
            HubUnavailable, AccessDenied, UnknownReference: As the hub answers.
        """
        commit, files = self._index()
        entry = files.layers.get(layer)
        if entry is None or not 0 <= feature < len(entry.offsets) - 1:
            return None
        start, stop = entry.offsets[feature], entry.offsets[feature + 1]
        if stop <= start:
            return None
        if not _PLAIN_NAME.match(entry.filename) or start < 0 or stop - start > _MAX_RECORD:
            raise BadFeatureFiles(
                f"the index of {self._repo_id} is damaged: layer {layer}, feature {feature}"
            )
        return unpack_record(self._bytes(commit, entry.filename, start, stop))

    def _index(self) -> tuple[str, FeatureFiles]:
        with self._lock:
            if self._files is None:
                name = f"{self._folder}/{INDEX}"
                found = hub.snapshot(self._repo_id, self._revision, [name], SilentProgress())
                folder = found.folder / self._folder
                if not (folder / INDEX).is_file():
                    raise MissingFile(
                        f"{self._repo_id} has no feature examples (no {name})",
                        "make them with circuit-tracer features build, and serve with --features-dir FOLDER",
                    )
                self._files = (found.commit, FeatureFiles(folder))
            return self._files

    def _bytes(self, commit: str, filename: str, start: int, stop: int) -> bytes:
        kept = (
            self._cache
            / self._repo_id.replace("/", "--")
            / commit
            / self._folder
            / filename
            / f"{start}-{stop}"
        )
        if kept.is_file():
            return kept.read_bytes()
        content = hub.read_range(self._repo_id, commit, f"{self._folder}/{filename}", start, stop - start)
        unpack_record(content)  # what can't be read isn't kept
        kept.parent.mkdir(parents=True, exist_ok=True)
        write_bytes(kept, content)
        return content
