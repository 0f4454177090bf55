"""The Hugging Face hub: downloads files of a repository once. The only module that uses `huggingface_hub`.

Independent of transcoders. Every failure becomes one sentence and a hint on what to do.
"""

from __future__ import annotations

import errno
import glob
import json
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from circuit_tracer_cli.errors import (
    AccessDenied,
    CircuitTracerError,
    HubUnavailable,
    MissingFile,
    OutputError,
    UnknownReference,
)
from circuit_tracer_cli.files.capacity import free_disk, size_in_words
from circuit_tracer_cli.types import Progress, SilentProgress

if TYPE_CHECKING:
    from huggingface_hub.errors import HfHubHTTPError

_LOG_IN = "set HF_TOKEN, or run `hf auth login`"
_MEBIBYTE = 2**20
_SPARE_BYTES = 64 * _MEBIBYTE  # for other files written meanwhile
_WORKERS = 8


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The folder that mirrors a repository at one commit; it contains at least the requested files."""

    folder: Path
    commit: str


def endpoint() -> str:
    """Return the hub's address: `HF_ENDPOINT`, or the public hub."""
    from huggingface_hub import constants

    return os.environ.get("HF_ENDPOINT", constants.ENDPOINT).rstrip("/")


def is_offline() -> bool:
    """True if the network must not be used: `--offline`, `HF_HUB_OFFLINE`."""
    from huggingface_hub import constants

    wish = os.environ.get("HF_HUB_OFFLINE", "").upper() in constants.ENV_VARS_TRUE_VALUES
    return wish or constants.is_offline_mode()


def cache_folder() -> Path:
    """Return the folder of the hub's cache."""
    from huggingface_hub import constants

    return Path(constants.HF_HUB_CACHE)


def snapshot(repo_id: str, revision: str | None, paths: Sequence[str], progress: Progress) -> Snapshot:
    """Return the repository with the files `paths`, downloading missing ones, several at a time.

    Without a network, or offline, it uses local files only. Paths that the repository lacks are ignored.

    Raises:
        UnknownReference: There is no such repository or revision.
        AccessDenied: It is gated, or the token has no access.
        HubUnavailable: The hub can't be reached or answers with an error, and files are missing locally.
        OutputError: The disk is full or not writable.
    """
    from huggingface_hub import snapshot_download

    with _explained(repo_id, revision):
        folder = snapshot_download(
            repo_id,
            revision=revision,
            allow_patterns=[glob.escape(path) for path in paths],
            local_files_only=is_offline(),
            max_workers=_WORKERS,
            tqdm_class=_meter(progress),
            endpoint=endpoint(),
        )
    return Snapshot(Path(folder), Path(folder).name)


def commit_of(repo_id: str, revision: str | None) -> str:
    """Return the commit of a repository whose `config.json` is or can be downloaded. Raises as `snapshot` does."""
    found = snapshot(repo_id, revision, ["config.json"], SilentProgress())
    if not (found.folder / "config.json").exists():
        raise HubUnavailable(f"can't tell which commit of {repo_id} is used", "download the model first")
    return found.commit


def file_sizes(repo_id: str, found: Snapshot) -> dict[str, int]:
    """Return path → bytes for every file of the repository at the snapshot's commit, downloaded or not.

    If the list was never fetched (an older download, read offline), it contains the local files.
    """
    from huggingface_hub import get_cached_repo_tree
    from huggingface_hub.errors import CachedRepoTreeNotFoundError

    try:
        tree = get_cached_repo_tree(repo_id, revision=found.commit)
    except CachedRepoTreeNotFoundError:
        here = (path for path in sorted(found.folder.rglob("*")) if path.is_file())
        return {path.relative_to(found.folder).as_posix(): path.stat().st_size for path in here}
    return {file.path: file.size for file in tree}


def read_range(repo_id: str, commit: str, path: str, start: int, count: int) -> bytes:
    """Return `count` bytes of a file from `start`, by one range request. Raises what `snapshot` raises."""
    from huggingface_hub import hf_hub_url
    from huggingface_hub.utils import (  # type: ignore[attr-defined]  # public, but not declared so
        build_hf_headers,
        get_session,
        hf_raise_for_status,
    )

    if is_offline():
        raise _not_here(repo_id)
    with _explained(repo_id, commit):
        response = get_session().get(
            hf_hub_url(repo_id, path, revision=commit, endpoint=endpoint()),
            headers={**build_hf_headers(), "Range": f"bytes={start}-{start + count - 1}"},
            follow_redirects=True,
        )
        hf_raise_for_status(response)
        body = response.content
    if response.status_code != 206:  # the server doesn't support ranges and sent the whole file
        body = body[start : start + count]
    if len(body) != count:
        raise HubUnavailable(f"the hub sent {len(body)} of {count} bytes of {repo_id}/{path}", "try again")
    return body


def require_space(needed: int, folder: Path) -> None:
    """Raise OutputError if `needed` more bytes don't fit on the folder's disk."""
    free = free_disk(folder)
    if needed + _SPARE_BYTES > free:
        raise OutputError(
            f"not enough disk space in {folder}: {size_in_words(needed)} needed, {size_in_words(free)} free",
            hint="free some space, or set HF_HOME (CIRCUIT_TRACER_CACHE_DIR for converted sets) to another disk",
        )


def forget(repo_id: str, path: Path) -> None:
    """Remove a downloaded file and its blob, if that is in the hub's cache of this repository."""
    home = (cache_folder() / f"models--{repo_id.replace('/', '--')}").resolve()
    blob = path.resolve()
    if path.is_symlink() and home in blob.parents and home in path.parent.resolve().parents:
        path.unlink()
        blob.unlink(missing_ok=True)


def _meter(progress: Progress) -> type[Any]:
    """Return a class with the interface of the client's progress bars that draws nothing and reports whole megabytes.

    The client makes several bars of bytes (received, written); the one that is furthest counts.
    """
    lock, reported = threading.Lock(), [0]

    class Meter:
        format_dict: ClassVar[dict[str, Any]] = {}

        def __init__(self, *args: Any, **kwargs: Any) -> None:
            self.n = kwargs.get("initial") or 0
            self.total = kwargs.get("total")
            self._counts_bytes = kwargs.get("unit") == "B"

        def __enter__(self) -> Meter:
            return self

        def __exit__(self, *error: object) -> None:
            pass

        def __getattr__(self, name: str) -> Callable[..., None]:
            """Ignore everything else that a bar can do."""
            return lambda *args, **kwargs: None

        def update(self, n: float | None = 1) -> None:
            with lock:
                self.n += n or 0
                steps = int(self.n) // _MEBIBYTE - reported[0]
                if self._counts_bytes and steps > 0:
                    reported[0] += steps
                    progress.advance(steps)

    return Meter


@contextmanager
def _explained(repo_id: str, revision: str | None) -> Iterator[None]:
    """Translate the client's exceptions into the program's errors."""
    import httpx2
    from huggingface_hub.errors import FileMetadataError, HfHubHTTPError, LocalEntryNotFoundError

    try:
        yield
    except CircuitTracerError:
        raise
    except HfHubHTTPError as error:
        raise _refused(repo_id, revision, error) from error
    except LocalEntryNotFoundError as error:
        cause = error.__cause__
        if isinstance(cause, HfHubHTTPError):
            raise _refused(repo_id, revision, cause) from error
        if isinstance(cause, FileMetadataError | json.JSONDecodeError):
            raise _not_a_hub() from error
        raise _not_here(repo_id) from error
    except json.JSONDecodeError as error:
        raise _not_a_hub() from error
    except httpx2.HTTPError as error:
        raise _unreachable(repo_id, type(error).__name__) from error
    except OSError as error:
        raise _not_written(repo_id, error) from error
    except (ValueError, RuntimeError) as error:
        raise HubUnavailable(f"{repo_id} can't be downloaded: {_short(error)}", "try again") from error


def _refused(repo_id: str, revision: str | None, error: HfHubHTTPError) -> CircuitTracerError:
    from huggingface_hub import errors, get_token

    status, signed_in = error.response.status_code, get_token() is not None
    page = f"{endpoint()}/{repo_id}"
    if isinstance(error, errors.GatedRepoError):
        if signed_in:
            return AccessDenied(
                f"{repo_id} is gated, and your token's account has no access to it",
                f"ask for access at {page}",
            )
        return AccessDenied(
            f"{repo_id} is gated: you have to accept its conditions first",
            f"accept them at {page}, then {_LOG_IN}",
        )
    if isinstance(error, errors.RepositoryNotFoundError):
        what = "your token can't see it" if signed_in else "it is private"
        hint = f"check the spelling; for a private one {_LOG_IN}"
        return UnknownReference(f"there is no repository {repo_id} on the hub, or {what}", hint)
    if isinstance(error, errors.RevisionNotFoundError):
        return UnknownReference(
            f"{repo_id} has no revision {revision!r}", f"its branches and tags are listed at {page}/tree/main"
        )
    if isinstance(error, errors.EntryNotFoundError):
        return MissingFile(
            f"{repo_id} lacks the file {_short(error.request.url.path)}", f"see {page}/tree/main"
        )
    if status == 401:
        return AccessDenied("the hub rejected your token", f"renew it: {_LOG_IN}")
    if status == 403 or isinstance(error, errors.DisabledRepoError):
        return AccessDenied(
            f"the hub refuses access to {repo_id}", f"use a token with read access: {_LOG_IN}"
        )
    if status == 429:
        return HubUnavailable(
            "the hub is rate-limiting you", f"wait a minute and try again; for a higher limit, {_LOG_IN}"
        )
    return HubUnavailable(f"the hub answered with status {status} for {repo_id}", "try again later")


def _not_here(repo_id: str) -> HubUnavailable:
    if is_offline():
        return HubUnavailable(
            f"{repo_id} isn't fully downloaded, and network access is off",
            "download it once without --offline and HF_HUB_OFFLINE",
        )
    return _unreachable(repo_id, "no connection")


def _not_a_hub() -> HubUnavailable:
    return HubUnavailable(
        f"{endpoint()} doesn't answer like a hub; the answer may be a login page of your network or a proxy",
        "open any web page and sign in if the network asks for it; otherwise check HF_ENDPOINT and the proxy",
    )


def _unreachable(repo_id: str, reason: str) -> HubUnavailable:
    return HubUnavailable(
        f"{repo_id} can't be downloaded: {endpoint()} can't be reached ({reason})",
        "check the network, proxy settings and HF_ENDPOINT; downloaded files load without it",
    )


def _not_written(repo_id: str, error: OSError) -> CircuitTracerError:
    if error.errno in {errno.ENOSPC, errno.EDQUOT}:
        return OutputError(
            f"the disk is full: {repo_id} doesn't fit in {cache_folder()}",
            hint="free some space, or set HF_HOME to a folder on another disk",
        )
    if isinstance(error, PermissionError):
        return OutputError(
            f"no permission to write to {cache_folder()}", hint="set HF_HOME to another folder"
        )
    return HubUnavailable(f"{repo_id} can't be downloaded: {_short(error)}", "try again")


def _short(error: object) -> str:
    return " ".join(str(error).split())[:200]
