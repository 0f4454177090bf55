"""Converting sets and keeping them: whole or resumable at any moment, and nothing of anybody else's ever removed."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from circuit_tracer_cli import cache
from circuit_tracer_cli import hub as client
from circuit_tracer_cli.errors import BadTranscoders, MissingFile, OutputError
from circuit_tracer_cli.transcoders import convert, converted
from circuit_tracer_cli.transcoders.components import active_features, reconstruct
from circuit_tracer_cli.transcoders.loading import inspect_transcoders, load_transcoders
from tests.hub.fake_hub import FakeHub, Repository
from tests.transcoders.conftest import RandomSet
from tests.transcoders.layouts import LAYOUTS, write

SOURCE = Path(__file__).resolve().parents[2] / "src"
STANDARD = [("plt", "relu"), ("plt", "jumprelu"), ("plt", "topk"), ("clt", "relu"), ("clt", "jumprelu")]


def files_of(folder: Path, prefix: str = "") -> dict[str, bytes]:
    paths = (path for path in folder.rglob("*") if path.is_file())
    return {prefix + path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}


def publish(hub: FakeHub, folder: Path, name: str = "user/set", commit: str = "c" * 40) -> None:
    hub.repositories[name] = Repository({".gitattributes": b""} | files_of(folder), commit=commit)


def everything(transcoders: Any, inputs: list[torch.Tensor]) -> list[torch.Tensor]:
    active = active_features(transcoders, inputs)
    return [active.indices, active.values, *reconstruct(transcoders, active, inputs)]


def assert_same(one: Any, other: Any, inputs: list[torch.Tensor]) -> None:
    for a, b in zip(everything(one, inputs), everything(other, inputs), strict=True):
        assert torch.equal(a, b)


def visible(root: Path) -> set[str]:
    return {
        path.relative_to(root).as_posix()
        for path in root.rglob("*")
        if path.is_file() and ".locks" not in path.parts
    }


@pytest.fixture
def small_set(tmp_path: Path) -> Path:
    return RandomSet("clt", "jumprelu", (0, 1, 2)).write(tmp_path / "set")


ALL = [*LAYOUTS, *(f"standard-{kind}-{activation}" for kind, activation in STANDARD)]


@pytest.mark.parametrize("sequential", [True, False])
@pytest.mark.parametrize("layout", ALL)
def test_cached_equals_direct(
    hub: FakeHub, root: Path, tmp_path: Path, layout: str, sequential: bool
) -> None:
    if layout in LAYOUTS:
        kind, activation, can_skip = LAYOUTS[layout]
        tiny = RandomSet(kind, activation, (0, 1, 2) if can_skip else ())
        folder = write(tiny, layout, tmp_path / "set")
    else:
        _, kind, activation = layout.split("-")
        tiny = RandomSet(kind, activation, (0, 1, 2))
        folder = tiny.write(tmp_path / "set", torch.bfloat16)
    publish(hub, folder)
    direct = load_transcoders("user/set", dtype=torch.float64)
    shape = inspect_transcoders("user/set").shape
    client_files = {path for path in client.cache_folder().rglob("*") if path.is_symlink()}
    for path in client_files:
        client.forget("user/set", path)
    assert cache.save_transcoders_to_cache("user/set", sequential=sequential) == root / "user/set"
    assert cache.is_cached("user/set")
    hub.status = 500
    cached = load_transcoders("user/set", dtype=torch.float64)
    assert_same(cached.transcoders, direct.transcoders, tiny.inputs())
    assert (cached.commit, cached.config.scan) == ("c" * 40, "user/set")
    seen = inspect_transcoders("user/set")
    assert seen.format == f"standard-{tiny.kind}"
    assert (seen.shape.activations, seen.shape.skip_layers) == (shape.activations, shape.skip_layers)
    assert seen.shape.stored_dtype is shape.stored_dtype
    assert not any(path.suffix in {".npz", ".safetensors"} for path in client.cache_folder().rglob("*"))
    assert not list(root.rglob(".unfinished"))


def test_what_was_downloaded_before_stays(hub: FakeHub, root: Path, small_set: Path) -> None:
    publish(hub, small_set)
    load_transcoders("user/set")
    before = files_of(client.cache_folder())
    cache.save_transcoders_to_cache("user/set")
    assert files_of(client.cache_folder()).keys() >= before.keys()
    empty = cache.empty_cache("user/set")
    assert empty > 0
    assert load_transcoders("user/set").transcoders.n_layers == 3


def test_downloads_may_be_kept(hub: FakeHub, root: Path, small_set: Path) -> None:
    publish(hub, small_set)
    cache.save_transcoders_to_cache("user/set", delete_hf_cache=False)
    assert len(list(client.cache_folder().rglob("*.safetensors"))) == 6


def test_a_newer_commit_replaces_and_the_same_does_nothing(hub: FakeHub, root: Path, tmp_path: Path) -> None:
    publish(hub, RandomSet("plt", "relu").write(tmp_path / "one"))
    folder = cache.save_transcoders_to_cache("user/set")
    times = {path: path.stat().st_mtime_ns for path in folder.iterdir()}
    cache.save_transcoders_to_cache("user/set")
    assert {path: path.stat().st_mtime_ns for path in folder.iterdir()} == times
    newer = RandomSet("clt", "relu", seed=5, n_layers=2)
    publish(hub, newer.write(tmp_path / "two"), commit="d" * 40)
    assert load_transcoders("user/set").commit == "c" * 40
    cache.save_transcoders_to_cache("user/set")
    assert load_transcoders("user/set").commit == "d" * 40
    assert not list(folder.glob("layer_*"))
    assert inspect_transcoders("user/set").shape.n_layers == 2


def test_the_key_is_reference_and_revision(hub: FakeHub, root: Path, small_set: Path) -> None:
    publish(hub, small_set)
    cache.save_transcoders_to_cache("hf://user/set?revision=v1")
    assert cache.get_cached_path("user/set@v1") == root / "user/set@v1"
    assert cache.is_cached("user/set@v1")
    assert not cache.is_cached("user/set")
    assert cache.get_cached_path("gemma") == root / "mwhanna/gemma-scope-transcoders"


def test_a_local_set_and_another_dtype(root: Path, tmp_path: Path) -> None:
    tiny = RandomSet("plt", "topk", (0,))
    folder = tiny.write(tmp_path / "set", torch.float32)
    entry = cache.save_transcoders_to_cache(folder, dtype=torch.bfloat16)
    assert entry.parent == root / "local"
    assert load_file(entry / "layer_0.safetensors")["W_enc"].dtype is torch.bfloat16
    one, config = cache.load_transcoders_from_cache(folder, dtype=torch.bfloat16)
    assert_same(one, load_transcoders(folder, dtype=torch.bfloat16).transcoders, tiny.inputs())
    assert (config.activation, config.k) == ("topk", 4)


def test_loading_from_the_cache_only(root: Path, small_set: Path) -> None:
    with pytest.raises(MissingFile, match="user/set isn't in the cache") as caught:
        cache.load_transcoders_from_cache("user/set")
    assert caught.value.hint == "circuit-tracer cache add user/set"
    assert cache.load_transcoders_from_cache(small_set)[0].n_layers == 3


def test_weights_that_are_not_finite_are_not_converted(root: Path, small_set: Path) -> None:
    path = small_set / "W_dec_1.safetensors"
    tensors = load_file(path)
    tensors["W_dec_1"][3] = torch.nan
    save_file(tensors, path)
    with pytest.raises(BadTranscoders, match=r"W_dec_1\.safetensors: tensor 'W_dec_1' contains NaN"):
        cache.save_transcoders_to_cache(small_set)
    assert not cache.is_cached(small_set)


def test_a_cache_made_by_the_reference_is_used(root: Path, small_set: Path) -> None:
    entry = root / "user" / "set"
    entry.parent.mkdir(parents=True)
    small_set.rename(entry)
    assert load_transcoders("user/set").commit is None
    [found] = cache.cached_sets()
    assert (found.reference, found.complete, found.manifest) == ("user/set", True, None)
    cache.empty_cache()
    assert cache.is_cached("user/set")
    cache.empty_cache("user/set")
    assert not entry.exists()


def test_removing_touches_nothing_else(hub: FakeHub, root: Path, small_set: Path, tmp_path: Path) -> None:
    publish(hub, small_set)
    hub.repositories["user/set"].files |= files_of(small_set, "sub/")
    for reference in ("user/set", "user/set/sub"):
        cache.save_transcoders_to_cache(reference)
    own = {
        root / "notes.txt",
        root / "user" / "set" / "mine.safetensors",
        root / "my-own" / "layer_0.safetensors",
    }
    for path in own:
        path.parent.mkdir(exist_ok=True)
        path.write_text("mine")
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "config.yaml").write_text("mine")
    (root / "user" / "linked").symlink_to(outside)
    assert [one.reference for one in cache.cached_sets()] == ["user/set", "user/set/sub"]
    cache.empty_cache("user/set")
    assert cache.is_cached("user/set/sub")
    assert not cache.is_cached("user/set")
    with pytest.raises(OutputError, match="outside the cache"):
        cache.empty_cache("user/linked")
    assert cache.empty_cache(small_set) == 0
    cache.empty_cache()
    assert cache.cached_sets() == []
    assert all(path.read_text() == "mine" for path in (*own, outside / "config.yaml"))
    assert load_transcoders(small_set).transcoders.n_layers == 3


def test_damage_is_found(root: Path, small_set: Path) -> None:
    entry = cache.save_transcoders_to_cache(small_set)
    assert converted.damaged_files(entry) == []
    path = entry / "W_dec_1.safetensors"
    body = bytearray(path.read_bytes())
    body[-1] ^= 1
    path.write_bytes(body)
    assert cache.is_cached(small_set)
    assert converted.damaged_files(entry) == ["W_dec_1.safetensors"]
    path.write_bytes(body[:-1])
    assert not cache.is_cached(small_set)
    cache.save_transcoders_to_cache(small_set)
    assert converted.damaged_files(entry) == []


def test_an_interrupted_conversion_goes_on(
    root: Path, small_set: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written: list[int] = []
    original = convert._convert_layer

    def stopping(*args: Any) -> Any:
        if len(written) == 2:
            raise KeyboardInterrupt
        written.append(args[2])
        return original(*args)

    monkeypatch.setattr(convert, "_convert_layer", stopping)
    with pytest.raises(KeyboardInterrupt):
        cache.save_transcoders_to_cache(small_set)
    [found] = cache.cached_sets()
    assert not found.complete
    assert not cache.is_cached(small_set)
    monkeypatch.setattr(
        convert, "_convert_layer", lambda *args: (written.append(args[2]), original(*args))[1]
    )
    cache.save_transcoders_to_cache(small_set)
    assert written == [0, 1, 2]
    assert_same(
        cache.load_transcoders_from_cache(small_set)[0],
        load_transcoders(small_set).transcoders,
        RandomSet("clt", "jumprelu").inputs(),
    )


# One process converts the set again and again in forked children, each killed at another moment: a fork costs
# milliseconds, an interpreter with torch seconds.
KILLED = """
import os, random, signal, sys, time
from pathlib import Path
from circuit_tracer_cli import cache
from circuit_tracer_cli.transcoders import convert, loading  # before the fork
import torch
torch.set_num_threads(1)
folder, root, wanted = sys.argv[1], sys.argv[2], int(sys.argv[3])
os.environ["CIRCUIT_TRACER_CACHE_DIR"] = root

def convert_in_a_child():
    pid = os.fork()
    if pid == 0:
        cache.save_transcoders_to_cache(folder)
        os._exit(0)
    return pid

for _ in range(2):
    cache.empty_cache()
    start = time.perf_counter()
    os.waitpid(convert_in_a_child(), 0)
    whole = time.perf_counter() - start
cache.empty_cache()
draw, kills = random.Random(0), 0
for _ in range(10 * wanted):
    pid = convert_in_a_child()
    time.sleep(draw.uniform(0, 0.8 * whole))
    os.kill(pid, signal.SIGKILL)
    _, status = os.waitpid(pid, 0)
    kills += os.WIFSIGNALED(status)
    if cache.is_cached(folder):
        loading.load_transcoders(cache.get_cached_path(folder), lazy_decoder=False)
        cache.empty_cache()
    if kills == wanted:
        break
cache.save_transcoders_to_cache(folder)
print(kills)
"""


def run(code: str, *arguments: str | Path | int) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(SOURCE), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=240, check=True)


@pytest.mark.process
@pytest.mark.parametrize("kills", [8, pytest.param(50, marks=pytest.mark.long)])
def test_kills_leave_nothing_behind(root: Path, tmp_path: Path, kills: int) -> None:
    tiny = RandomSet("clt", "jumprelu", (1,), n_layers=6)
    folder = tiny.write(tmp_path / "set")
    finished = run(KILLED, folder, root, kills)
    assert int(finished.stdout) == kills
    entry = cache.get_cached_path(folder)
    names = {f"W_{part}_{layer}.safetensors" for part in ("enc", "dec") for layer in range(6)}
    expected = {*names, "config.yaml", converted.MANIFEST}
    assert visible(root) == {f"local/{entry.name}/{name}" for name in expected}
    assert converted.damaged_files(entry) == []
    assert_same(
        cache.load_transcoders_from_cache(folder)[0], load_transcoders(folder).transcoders, tiny.inputs()
    )


TWICE = """
import os, sys
from circuit_tracer_cli import cache
from circuit_tracer_cli.transcoders import convert
import torch
torch.set_num_threads(1)
folder, root = sys.argv[1:3]
os.environ["CIRCUIT_TRACER_CACHE_DIR"] = root
original, written = convert._convert_layer, []
def counted(*args):
    written.append(args[2])
    return original(*args)
convert._convert_layer = counted
ready, go = os.pipe()
pid = os.fork()
cache.save_transcoders_to_cache(folder)
print(len(written), flush=True)
if pid:
    _, status = os.waitpid(pid, 0)
    sys.exit(status)
"""


@pytest.mark.process
def test_two_processes_at_once_do_the_work_once(root: Path, small_set: Path) -> None:
    finished = run(TWICE, small_set, root)
    assert sorted(map(int, finished.stdout.split())) == [0, 3]
    assert converted.damaged_files(cache.get_cached_path(small_set)) == []


def test_a_cache_that_can_not_be_written(
    tmp_path: Path, small_set: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="can't be written") as caught:
        cache.save_transcoders_to_cache(small_set, cache_dir=tmp_path / "file")
    assert "CIRCUIT_TRACER_CACHE_DIR" in (caught.value.hint or "")


def test_where_the_cache_lies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("CIRCUIT_TRACER_CACHE_DIR", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache.get_cache_dir() == tmp_path / ".cache" / "circuit_tracer"
    assert cache.get_cache_dir("~/sets") == tmp_path / "sets"
    monkeypatch.setenv("CIRCUIT_TRACER_CACHE_DIR", str(tmp_path / "elsewhere"))
    assert cache.get_cache_dir() == tmp_path / "elsewhere"
    assert cache.cached_sets() == []
