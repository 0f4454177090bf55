"""The real client against a server on this machine."""

from __future__ import annotations

import errno
import shutil
from pathlib import Path

import pytest
from huggingface_hub import constants

from circuit_tracer_cli import hub as client
from circuit_tracer_cli.errors import AccessDenied, HubUnavailable, OutputError, UnknownReference
from circuit_tracer_cli.types import SilentProgress
from tests.hub.fake_hub import FakeHub, Repository

BIG = bytes(range(256)) * 5000


class Counting(SilentProgress):
    def __init__(self) -> None:
        self.steps = 0

    def advance(self, steps: int = 1) -> None:
        self.steps += steps


def fetch(*paths: str, repo: str = "user/set", revision: str | None = None) -> client.Snapshot:
    return client.snapshot(repo, revision, paths, SilentProgress())


@pytest.fixture
def filled(hub: FakeHub) -> FakeHub:
    hub.repositories["user/set"] = Repository({"a.txt": b"small", "sub/b.bin": BIG, "sub/[c].bin": BIG[1:]})
    return hub


def test_named_files_and_no_others(filled: FakeHub) -> None:
    found = fetch("sub/[c].bin")
    assert found.commit == "c" * 40
    assert (found.folder / "sub" / "[c].bin").read_bytes() == BIG[1:]
    assert not (found.folder / "a.txt").exists()
    assert not (found.folder / "sub" / "b.bin").exists()
    sizes = client.file_sizes("user/set", found)
    assert sizes == {"a.txt": 5, "sub/b.bin": len(BIG), "sub/[c].bin": len(BIG) - 1}


def test_what_is_here_is_not_fetched_again(filled: FakeHub) -> None:
    fetch("a.txt", "sub/b.bin")
    filled.requests.clear()
    fetch("a.txt", "sub/b.bin")
    assert filled.asked("blobs|resolve") == []
    filled.requests.clear()
    fetch("a.txt", "sub/b.bin", revision="c" * 40)
    assert filled.requests == []


def test_a_revision_is_pinned(filled: FakeHub) -> None:
    first = fetch("a.txt", revision="v1")
    filled.repositories["user/set"].commit = "d" * 40
    filled.repositories["user/set"].files["a.txt"] = b"newer"
    assert (fetch("a.txt").folder / "a.txt").read_bytes() == b"newer"
    assert (fetch("a.txt", revision=first.commit).folder / "a.txt").read_bytes() == b"small"
    with pytest.raises(UnknownReference, match="no revision 'v9'") as caught:
        fetch("a.txt", revision="v9")
    assert "/user/set/tree/main" in (caught.value.hint or "")


def test_progress_counts_megabytes(filled: FakeHub) -> None:
    progress = Counting()
    client.snapshot("user/set", None, ["sub/b.bin", "sub/[c].bin"], progress)
    assert progress.steps == 2


def test_a_broken_connection_is_taken_up_where_it_broke(
    filled: FakeHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(constants, "DOWNLOAD_CHUNK_SIZE", 100_000)
    filled.cuts = [300_000]
    assert (fetch("sub/b.bin").folder / "sub" / "b.bin").read_bytes() == BIG
    assert any(request.endswith(" bytes=300000-") for request in filled.ranges)


def test_an_unfinished_download_leaves_no_file(filled: FakeHub) -> None:
    filled.blob_status = 500
    with pytest.raises(HubUnavailable, match="status 500 for user/set"):
        fetch("sub/b.bin")
    assert not list(client.cache_folder().rglob("*.bin"))
    filled.blob_status = None
    assert (fetch("sub/b.bin").folder / "sub" / "b.bin").read_bytes() == BIG


def test_a_repository_that_is_not_there(filled: FakeHub, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(
        UnknownReference, match="no repository user/sett on the hub, or it is private"
    ) as caught:
        fetch("a.txt", repo="user/sett")
    assert "HF_TOKEN" in (caught.value.hint or "")
    assert "hf auth login" in (caught.value.hint or "")
    monkeypatch.setenv("HF_TOKEN", "let-me-in")
    with pytest.raises(UnknownReference, match="or your token can't see it"):
        fetch("a.txt", repo="user/sett")


def test_a_private_repository(filled: FakeHub, monkeypatch: pytest.MonkeyPatch) -> None:
    filled.repositories["user/set"].private = True
    with pytest.raises(UnknownReference, match="it is private"):
        fetch("a.txt")
    monkeypatch.setenv("HF_TOKEN", "let-me-in")
    assert (fetch("a.txt").folder / "a.txt").read_bytes() == b"small"


def test_a_gated_repository(filled: FakeHub, monkeypatch: pytest.MonkeyPatch) -> None:
    filled.repositories["user/set"].gated = True
    with pytest.raises(AccessDenied, match="user/set is gated") as caught:
        fetch("a.txt")
    assert f"{filled.url}/user/set" in (caught.value.hint or "")
    assert "HF_TOKEN" in (caught.value.hint or "")
    assert isinstance(caught.value, PermissionError)
    monkeypatch.setenv("HF_TOKEN", "other")
    with pytest.raises(AccessDenied, match="your token's account has no access"):
        fetch("sub/b.bin")
    monkeypatch.setenv("HF_TOKEN", "let-me-in")
    assert (fetch("sub/b.bin").folder / "sub" / "b.bin").read_bytes() == BIG
    assert client.read_range("user/set", "c" * 40, "sub/b.bin", 0, 3) == BIG[:3]
    assert filled.leaked_tokens == []


def test_a_wrong_token(filled: FakeHub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "expired")
    with pytest.raises(AccessDenied, match="rejected your token") as caught:
        fetch("a.txt")
    assert "hf auth login" in (caught.value.hint or "")


@pytest.mark.parametrize(
    ("status", "kind", "said"),
    [
        (403, AccessDenied, "refuses access"),
        (429, HubUnavailable, "rate-limiting"),
        (503, HubUnavailable, "503"),
    ],
)
def test_other_refusals(filled: FakeHub, status: int, kind: type[Exception], said: str) -> None:
    filled.status = status
    with pytest.raises(kind, match=said):
        fetch("a.txt")


def test_no_network(filled: FakeHub, monkeypatch: pytest.MonkeyPatch) -> None:
    fetch("a.txt")
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    assert (fetch("a.txt").folder / "a.txt").read_bytes() == b"small"
    with pytest.raises(HubUnavailable, match=r"http://127\.0\.0\.1:9 can't be reached") as caught:
        fetch("a.txt", "sub/b.bin")
    assert "HF_ENDPOINT" in (caught.value.hint or "")


@pytest.mark.parametrize("how", ["variable", "constant"])
def test_offline(filled: FakeHub, monkeypatch: pytest.MonkeyPatch, how: str) -> None:
    fetch("a.txt", revision="v1")
    if how == "variable":
        monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    else:
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    filled.requests.clear()
    assert (fetch("a.txt", revision="v1").folder / "a.txt").read_bytes() == b"small"
    for revision, path in (("v1", "sub/b.bin"), ("main", "a.txt")):
        with pytest.raises(HubUnavailable, match="network access is off") as caught:
            fetch(path, revision=revision)
        assert "without --offline" in (caught.value.hint or "")
    assert filled.requests == []


def test_a_full_disk_before_and_during(
    filled: FakeHub, hub_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(OutputError, match="not enough disk space in") as caught:
        client.require_space(shutil.disk_usage(hub_cache.parent).total, hub_cache)
    assert "HF_HOME" in (caught.value.hint or "")
    client.require_space(0, hub_cache)

    def full(*args: object, **kwargs: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("huggingface_hub.file_download._chmod_and_move", full)
    with pytest.raises(OutputError, match="the disk is full: user/set doesn't fit"):
        fetch("a.txt")


def test_a_range_of_a_file(filled: FakeHub) -> None:
    assert client.read_range("user/set", "c" * 40, "sub/b.bin", 250, 20) == BIG[250:270]
    assert filled.ranges[-1].endswith("bytes=250-269")
    filled.ignores_ranges = True
    assert client.read_range("user/set", "c" * 40, "sub/b.bin", 250, 20) == BIG[250:270]
    with pytest.raises(HubUnavailable, match="sent 6 of 9 bytes"):
        client.read_range("user/set", "c" * 40, "sub/b.bin", len(BIG) - 6, 9)


def test_a_download_is_forgotten_and_nothing_else(filled: FakeHub, tmp_path: Path) -> None:
    found = fetch("sub/b.bin", "a.txt")
    path = found.folder / "sub" / "b.bin"
    blob = path.resolve()
    client.forget("user/set", path)
    assert not path.is_symlink()
    assert not blob.exists()
    assert (found.folder / "a.txt").read_bytes() == b"small"
    own = tmp_path / "own.bin"
    own.write_bytes(b"mine")
    link = tmp_path / "link.bin"
    link.symlink_to(own)
    for outside in (own, link):
        client.forget("user/set", outside)
    assert own.exists()
    assert link.is_symlink()


def test_a_captive_portal_is_named(filled: FakeHub) -> None:
    """It answers everything with its own page, status 200."""
    filled.page = b"<!DOCTYPE html><title>Welcome to the train</title>" + b" " * 500
    with pytest.raises(HubUnavailable, match="doesn't answer like a hub") as caught:
        fetch("a.txt")
    assert "sign in" in str(caught.value.hint)
    with pytest.raises(HubUnavailable):
        client.read_range("user/set", "c" * 40, "sub/b.bin", 0, 10_000)
    filled.page = b""
    assert (fetch("a.txt").folder / "a.txt").read_bytes() == b"small"
