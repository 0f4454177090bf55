"""The files of an unfinished build: the tokens read so far, and saved states to resume from after a kill.

.build/tokens.bin      int32, all sequences one after the other; only ever appended to
.build/starts.bin      int64, where each sequence begins
.build/state-N/        the arrays of every layer
.build/progress.json   which state is current, and how far it reaches; written last
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Self
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from circuit_tracer_cli.errors import BadFeatureFiles
from circuit_tracer_cli.files.atomic import atomic_writer, output_error, write_bytes

FOLDER = ".build"
Arrays = Mapping[str, NDArray[Any]]
_AFRESH = "start over with --no-resume"


@dataclass(frozen=True, slots=True)
class Position:
    """The progress of a build."""

    documents: int = 0  # read, including skipped ones
    skipped: int = 0
    sequences: int = 0
    tokens: int = 0  # in the token file
    counted: int = 0  # tokens at which features can be active
    digest: str = ""  # of all documents read, each folded into the one before

    def after(self, document: str) -> str:
        """The digest with one more document."""
        content = document.encode("utf-8", "surrogatepass")
        return hashlib.sha256(self.digest.encode() + b"\0" + content).hexdigest()


class Workspace:
    """The folder `.build` in the output folder, open for appending tokens.

    Args:
        output_dir: The output folder; made if missing.
        settings: Everything that determines the result; a saved state with other settings isn't used.
        resume: Continue from a saved state if there is one.

    Raises:
        OutputError: The folder can't be written.
        BadFeatureFiles: There is a state of another build, or a damaged one.
    """

    def __init__(self, output_dir: Path, settings: Mapping[str, Any], *, resume: bool) -> None:
        self.folder = output_dir / FOLDER
        self.settings = dict(settings)
        self.generation = 0
        self.position = Position()
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise output_error(self.folder, error) from error
        if resume:
            self._read_progress()
        self._tokens = self._opened("tokens.bin", self.position.tokens * 4)
        self._starts = self._opened("starts.bin", self.position.sequences * 8)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for stream in (self._tokens, self._starts):
            try:
                stream.close()
            except (
                OSError
            ) as close_error:  # its buffer doesn't fit on the disk; current states were flushed before
                if error is None:
                    raise output_error(self.folder, close_error) from close_error

    def _read_progress(self) -> None:
        path = self.folder / "progress.json"
        if not path.exists():
            return
        try:
            saved = json.loads(path.read_text(encoding="utf-8"))
            other = [name for name, value in self.settings.items() if saved["settings"].get(name) != value]
            self.generation, self.position = int(saved["generation"]), Position(**saved["position"])
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise BadFeatureFiles(f"{path} can't be read: {error}", hint=_AFRESH) from error
        if other:
            names = ", ".join(sorted(other))
            raise BadFeatureFiles(
                f"the unfinished build in {self.folder} has other settings: {names}", hint=_AFRESH
            )

    def _opened(self, name: str, size: int) -> BinaryIO:
        """A stream that appends after the first `size` bytes; what a killed build wrote after them is cut off."""
        path = self.folder / name
        try:
            path.touch()
            if path.stat().st_size < size:
                raise BadFeatureFiles(f"{path} is shorter than the saved state says", hint=_AFRESH)
            os.truncate(path, size)
            return path.open("ab")
        except OSError as error:
            raise output_error(path, error) from error

    def append(self, tokens: NDArray[np.int32], starts: NDArray[np.int64]) -> None:
        """Append tokens and the starts of their sequences."""
        try:
            self._tokens.write(tokens.tobytes())
            self._starts.write(starts.astype(np.int64).tobytes())
        except OSError as error:
            raise output_error(self.folder, error) from error

    def flush(self) -> None:
        """Make sure that appended data is on disk."""
        try:
            for stream in (self._tokens, self._starts):
                stream.flush()
                os.fsync(stream.fileno())
        except OSError as error:
            raise output_error(self.folder, error) from error

    def save(self, states: Iterable[tuple[str, Arrays]], position: Position) -> None:
        """Save the arrays, make them the current state, and remove the previous one."""
        self.flush()
        target = self.folder / f"state-{self.generation + 1}"
        shutil.rmtree(target, ignore_errors=True)
        try:
            target.mkdir()
        except OSError as error:
            raise output_error(target, error) from error
        for name, arrays in states:
            with atomic_writer(target / f"{name}.npz") as stream:
                np.savez(stream, allow_pickle=False, **arrays)
        self.generation, self.position = self.generation + 1, position
        progress = {"settings": self.settings, "generation": self.generation, "position": asdict(position)}
        write_bytes(self.folder / "progress.json", json.dumps(progress).encode())
        shutil.rmtree(self.folder / f"state-{self.generation - 1}", ignore_errors=True)

    def restore(self, name: str, arrays: Arrays) -> None:
        """Copy a saved state into the arrays. Raises BadFeatureFiles if it doesn't fit them."""
        path = self.folder / f"state-{self.generation}" / f"{name}.npz"
        try:
            with path.open("rb") as stream, np.load(stream, allow_pickle=False) as saved:
                for key, array in arrays.items():
                    if saved[key].shape != array.shape or saved[key].dtype != array.dtype:
                        raise ValueError(f"{key} has shape {saved[key].shape}")
                    array[...] = saved[key]
        except (OSError, ValueError, KeyError, EOFError, BadZipFile) as error:
            raise BadFeatureFiles(f"{path} can't be read: {error}", hint=_AFRESH) from error

    def token_file(self) -> NDArray[np.int32]:
        """All tokens, memory-mapped."""
        return (
            np.memmap(self.folder / "tokens.bin", np.int32, "r")
            if self.position.tokens
            else np.zeros(0, np.int32)
        )

    def sequence_starts(self) -> NDArray[np.int64]:
        """Where each sequence begins."""
        return np.fromfile(self.folder / "starts.bin", np.int64)

    def remove(self) -> None:
        """Remove the folder: the build is finished."""
        shutil.rmtree(self.folder, ignore_errors=True)
