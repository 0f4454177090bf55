"""Whole batches of the demo: the same numbers as single commands, and the same folder however often they are killed."""

from __future__ import annotations

import errno
import json
import os
import random
import re
import resource
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

import pytest
import torch

from circuit_tracer_cli.batch.engines import _after_a_death
from circuit_tracer_cli.batch.plan import failure_of
from circuit_tracer_cli.batch.store import ATTEMPTS, Item, Store, read_items
from circuit_tracer_cli.batch.worker import DeviceLost, Worker, open_batch, run_share
from circuit_tracer_cli.cli.app import run
from circuit_tracer_cli.errors import ModelMismatch, OutputError
from circuit_tracer_cli.export.graph_list import read_graph_list
from circuit_tracer_cli.files import atomic
from circuit_tracer_cli.graph.graph import Graph
from tests.batch.conftest import CITIES, SETTINGS, TEMPLATE, Batch, Start, command, good_rows, write_prompts
from tests.cases import one_of

LEFT_BEHIND = re.compile(r"\.tmp$|\.part$")


def tensors_of(path: Path) -> dict[str, bytes]:
    """The bytes of each tensor of a stored graph."""
    from safetensors.numpy import load_file

    return {name: value.tobytes() for name, value in load_file(path).items()}


def assert_same_objects(batch: Batch, other: Batch) -> None:
    assert set(batch.objects()) == set(other.objects())
    for name, path in other.objects().items():
        assert tensors_of(batch.objects()[name]) == tensors_of(path)


def test_a_batch_stores_each_distinct_prompt_once_and_records_the_bad_ones(
    reference: Batch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert reference.code == 3
    assert len(reference.objects()) == len(CITIES)
    graphs = {path.stem for path in (reference.root / "graphs").glob("*.json")}
    slugs = {item.slug for item in read_items(reference.root)[: len(CITIES) + 1]}
    assert slugs == graphs - {"graph-metadata"} == listed(reference.root)
    assert run(["batch", str(reference.root), "--status", "--json"]) == 3
    status = json.loads(capsys.readouterr().out)
    assert [status[name] for name in ("total", "done", "failed", "running", "waiting")] == [8, 5, 3, 0, 0]
    errors = " | ".join(failure["error"] for failure in status["failures"])
    assert "Zanzibar99" in errors
    assert "64" in errors
    assert "mixed" in errors


def test_graphs_are_those_of_single_commands(reference: Batch, tmp_path: Path) -> None:
    item = read_items(reference.root)[0]
    single = tmp_path / "single.safetensors"
    prompt = TEMPLATE.format(city=CITIES[0])
    assert (
        run(["attribute", "-p", prompt, "--target", "Austin", *SETTINGS, "-o", str(single), "--quiet"]) == 0
    )
    assert tensors_of(single) == tensors_of(reference.objects()[item.key])


def test_a_second_run_does_nothing_again(reference: Batch) -> None:
    before = {path: path.stat().st_mtime_ns for path in reference.root.rglob("*.safetensors")}
    assert run_share(reference.root, 0, 1) == {"done": 0, "failed": 0, "there": 0}
    assert before == {path: path.stat().st_mtime_ns for path in reference.root.rglob("*.safetensors")}


def test_a_missing_file_of_the_viewer_is_written_from_the_stored_graph(reference: Batch) -> None:
    item = read_items(reference.root)[0]
    path = reference.root / "graphs" / f"{item.slug}.json"
    before = json.loads(path.read_text())
    path.unlink()
    assert run_share(reference.root, 0, 1)["there"] == 1
    assert json.loads(path.read_text())["links"] == before["links"]


def test_options_that_a_batch_has_settled_are_refused(
    reference: Batch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert run(["batch", str(reference.root), "--dtype", "bfloat16"]) == 2
    assert "--dtype" in capsys.readouterr().err
    prompts = write_prompts(tmp_path / "p.jsonl", good_rows()[:1])
    assert run(command(prompts, reference.root, "--batch-size", "7")) == 1
    assert "batch_size 256, not 7" in capsys.readouterr().err
    assert run(command(prompts, tmp_path / "o", "--devices", "cpu", "--device", "cpu")) == 2


def planned(tmp_path: Path, *more: str) -> Path:
    """A batch that is planned and not worked on."""
    prompts = write_prompts(tmp_path / "p.jsonl", good_rows()[:2])
    assert run(command(prompts, tmp_path / "out", "--print-sbatch", *more)) == 0
    return tmp_path / "out"


@pytest.fixture
def one_thread() -> Iterator[None]:
    """A copied process has none of its threads, and sums in other orders than one that has them."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def warm(tmp_path_factory: pytest.TempPathFactory) -> Worker:
    """A worker that has its model, on a batch of two prompts."""
    worker = Worker(planned(tmp_path_factory.mktemp("warm")))
    worker._loaded(lambda: None)
    return worker


def test_a_full_disk_leaves_nothing_half_written(warm: Worker) -> None:
    root, item = warm.batch.store.root, warm.batch.items[0]
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, before[1]))
    try:
        with pytest.raises(OutputError, match="can't write"):
            warm.run(item)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    batch = Batch(root, 0)
    assert not batch.objects()
    assert not [name for name in batch.files() if LEFT_BEHIND.search(name)]
    assert not list((root / "running").iterdir())
    assert warm.run(item) == "done"
    for path in batch.objects().values():
        assert "adjacency_values" in tensors_of(path)


def test_a_damaged_object_without_a_file_for_the_viewer_is_made_again(warm: Worker) -> None:
    store, item = warm.batch.store, warm.batch.items[1]
    assert warm.run(item) == "done"
    whole = tensors_of(store.result(item.key))
    store.result(item.key).write_bytes(b"damaged")
    (store.root / "graphs" / f"{item.slug}.json").unlink()
    assert warm.run(item) == "done"
    assert tensors_of(store.result(item.key)) == whole
    assert warm.run(item) == "there"


class Disk:
    """Stands in the way of every file that is written for good."""

    def __init__(self) -> None:
        self.error = 0

    def open(self, target: Path) -> None:
        if self.error:
            raise OSError(self.error, os.strerror(self.error), str(target))


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Disk:
    """A disk that can be made full or read-only, also for root."""
    broken = Disk()
    real = atomic._open_unnamed

    def opened(target: Path) -> BinaryIO | None:
        broken.open(target)
        return real(target)

    monkeypatch.setattr(atomic, "_open_unnamed", opened)
    return broken


@pytest.mark.parametrize(
    ("number", "said"), [(errno.EROFS, "read-only file system"), (errno.ENOSPC, "no space left on device")]
)
def test_a_store_that_stops_taking_files_ends_the_batch_with_one_line(
    warm: Worker,
    tmp_path: Path,
    disk: Disk,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    number: int,
    said: str,
) -> None:
    root = planned(tmp_path)
    trace = Worker._trace
    done = []

    def second_fails(self: Worker, item: Item, *rest: Any) -> Graph:
        graph = trace(self, item, *rest)
        disk.error = number if done else 0
        done.append(item.key)
        return graph

    monkeypatch.setattr(Worker, "_trace", second_fails)
    monkeypatch.setattr(Worker, "_loaded", lambda *_: warm._model)
    capsys.readouterr()
    assert run(["batch", str(root), "--part", "0/1"]) == 1
    error = capsys.readouterr().err.strip().splitlines()
    assert len(error) == 2
    assert error[0].startswith("error: can't write ")
    assert error[0].endswith(said)
    assert error[1].startswith("hint: ")
    status = Store(root).status(read_items(root))
    assert (status.done, status.failed, status.waiting) == (1, 0, 1)
    assert len(Batch(root, 0).objects()) == 1
    disk.error = 0
    monkeypatch.setattr(Worker, "_trace", trace)
    assert run_share(root, 0, 1) == {"done": 1, "failed": 0, "there": 0}
    assert listed(root) == {item.slug for item in read_items(root)}


def listed(root: Path) -> set[str]:
    """Slugs in the viewer's list of a batch."""
    return {entry["slug"] for entry in read_graph_list(root / "graphs")}


def test_the_list_of_graphs_is_written_rarely_and_whole_at_the_end(
    warm: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = warm.batch.store.root
    calls = []
    monkeypatch.setattr(Store, "list_graphs", lambda self: calls.append(self.root))
    warm._list_from = 0.0
    for _ in range(5):
        warm._list_graphs()
    assert calls == [root]
    monkeypatch.undo()
    (root / "graphs" / "graph-metadata.json").write_text("damaged")
    warm.batch.store.list_graphs()
    assert listed(root) == {path.stem for path in (root / "graphs").glob("*.json")} - {"graph-metadata"}


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("keep", "all", "keep: Input should be 'raw', 'pruned' or 'tables'"),
        ("targets", 3, "targets"),
        ("offload", 7, "offload"),
        ("compute_block", 0, "compute_block is 0"),
        ("content", None, "content"),
        ("batch_size", None, "batch_size"),
        ("numbers_version", 0, "another version"),
        ("dtype", ..., "lacks dtype"),
    ],
)
def test_damaged_settings_are_one_clear_line(
    warm: Worker, tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, value: object, said: str
) -> None:
    settings = json.loads((warm.batch.store.root / "batch.json").read_text())
    settings[name] = value
    if value is ...:
        del settings[name]
    (tmp_path / "batch.json").write_text(json.dumps(settings))
    for arguments in (("--status",), ("--part", "0/1")):
        assert run(["batch", str(tmp_path), *arguments]) == 1
        error = capsys.readouterr().err
        assert error.startswith("error: ")
        assert said in error
        assert "Traceback" not in error


def test_watching_goes_on_while_a_failure_will_be_tried_again(
    warm: Worker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    root = planned(tmp_path)
    store, items = Store(root), read_items(root)
    failures = [failure_of(item, RuntimeError("it broke"), final=False) for item in items]
    store.record_failure(failures[0])
    for _ in range(ATTEMPTS):
        store.record_failure(failures[1])
    assert store.status(items).to_dict()["retried"] == 1
    waited = []

    def later(seconds: float) -> None:
        waited.append(seconds)
        store.record_failure(failures[0])

    capsys.readouterr()
    monkeypatch.setattr(time, "sleep", later)
    assert run(["batch", str(root), "--watch", "--json"]) == 3
    assert len(waited) == ATTEMPTS - 1
    assert json.loads(capsys.readouterr().out)["retried"] == 0


def test_a_worker_that_says_why_it_ends_is_believed(warm: Worker, tmp_path: Path) -> None:
    batch = open_batch(planned(tmp_path))
    item = batch.items[0]
    assert _after_a_death(batch, item, 0, "it died", "no hint") == "failed"
    batch.store.record_failure(failure_of(item, DeviceLost("the device failed: ECC"), final=False))
    assert _after_a_death(batch, item, 1, "it died", "no hint") == "failed"
    found = batch.store.failure(item.key)
    assert found is not None
    assert (found.error, found.attempts) == ("the device failed: ECC", 2)


def test_a_fault_of_the_program_is_a_failure_of_its_prompt(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = planned(tmp_path)
    worker = Worker(root)

    def broken(*_: object) -> None:
        raise KeyError("lost")

    monkeypatch.setattr(worker, "_loaded", lambda _: None)
    monkeypatch.setattr(worker, "_trace", broken)
    item = worker.batch.items[0]
    assert worker.run(item) == "failed"
    failure = worker.batch.store.failure(item.key)
    assert failure is not None
    assert failure.error == "KeyError: 'lost'"
    assert "in broken" in failure.traceback


def test_a_model_that_changed_since_is_refused(tmp_path: Path) -> None:
    root = planned(tmp_path)
    settings = json.loads((root / "batch.json").read_text())
    settings["content"]["model"] = "another"
    (root / "batch.json").write_text(json.dumps(settings))
    worker = Worker(root)
    with pytest.raises(ModelMismatch, match="model of this batch has changed"):
        worker.run(worker.batch.items[0])


def test_a_folder_that_cannot_be_written_to_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    prompts = write_prompts(tmp_path / "p.jsonl", good_rows()[:1])
    assert run(command(prompts, Path("/proc/batch"))) == 1
    assert "error: " in capsys.readouterr().err


@pytest.mark.parametrize("keep", one_of("tables", "pruned"))
def test_other_things_can_be_kept(tmp_path: Path, keep: str) -> None:
    pytest.importorskip("duckdb")
    from circuit_tracer_cli.many.tables import query

    root = planned(tmp_path, "--keep", keep)
    assert run_share(root, 0, 1)["done"] == 2
    assert run_share(root, 0, 1)["done"] == 0
    rows = query(root, "select x_city, n_features > 0 from graphs order by x_city")[1]
    assert rows == [("Dallas", True), ("Oakland", True)]
    assert (root / "objects").is_dir() == (keep == "pruned")


def workers_of(pid: int) -> list[int]:
    """Process ids of the worker processes of a driver."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text().rpartition(")")[2].split()
            spawned = b"spawn_main" in (path.parent / "cmdline").read_bytes()
        except OSError:
            continue
        if int(fields[1]) == pid and spawned:
            found.append(int(path.parent.name))
    return found


def wait_for_work(root: Path, process: subprocess.Popen[str]) -> bool:
    """Wait until a prompt is being worked on; False if the driver ends first."""
    while process.poll() is None:
        if any((root / "running").glob("*")):
            return True
        time.sleep(0.02)
    return False


def wait_for_the_end_of(pids: list[int]) -> None:
    """Fail unless processes end by themselves soon."""
    deadline = time.monotonic() + 60
    while any(Path(f"/proc/{pid}/stat").exists() for pid in pids):
        assert time.monotonic() < deadline
        time.sleep(0.05)


def kill_and_go_on(kills: int, prompts: Path, root: Path, start: Start, seed: int) -> None:
    """Kill a worker and then the driver at random moments, again and again, and at last let two drivers finish."""
    rng = random.Random(seed)
    for _ in range(kills):
        driver = start(command(prompts, root))
        if wait_for_work(root, driver):
            time.sleep(rng.random() * 0.5)
            for pid in workers_of(driver.pid):
                os.kill(pid, signal.SIGKILL)
            time.sleep(rng.random() * 2)
            own = workers_of(driver.pid)
            driver.kill()
            wait_for_the_end_of(own)
        driver.communicate(timeout=300)
        for item in read_items(root):  # a sign of life that a killed worker left is no worker
            (root / "running" / item.key).unlink(missing_ok=True)
    both = [start(command(prompts, root)) for _ in range(2)]
    for driver in both:
        shown, _ = driver.communicate(timeout=600)
        assert driver.returncode == 0, shown


def killed_at(moment: str, monkeypatch: pytest.MonkeyPatch, work: Callable[[], object]) -> None:
    """Do something in a copy of this process that is killed when it comes to write a file of that ending."""
    real = atomic._publish

    def publish(stream: BinaryIO, target: Path) -> None:
        if target.name.endswith(moment):
            os.kill(os.getpid(), signal.SIGKILL)
        real(stream, target)

    child = os.fork()
    if child == 0:  # never comes back into the test
        signal.alarm(120)
        monkeypatch.setattr(atomic, "_publish", publish)
        try:
            work()
        finally:
            os._exit(0)
    assert os.waitpid(child, 0)[1] == signal.SIGKILL


@pytest.mark.usefixtures("one_thread")
def test_kills_at_every_file_leave_a_folder_to_go_on_with(
    warm: Worker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "unharmed").mkdir()
    unharmed = Worker(planned(tmp_path / "unharmed"))
    unharmed._model = warm._model
    assert [unharmed.run(item) for item in unharmed.batch.items] == ["done", "done"]
    root = tmp_path / "out"
    for moment in ("batch.json", "batch.jsonl"):  # the driver; once more at its end, below
        killed_at(moment, monkeypatch, lambda: planned(tmp_path))
    planned(tmp_path)
    worker = Worker(root)
    worker._model = warm._model
    first, second = worker.batch.items
    for moment in (f"{first.slug}.json", f"{first.key}.safetensors", "graph-metadata.json"):
        killed_at(moment, monkeypatch, lambda: worker.run(first))
    killed_at("graph-metadata.json", monkeypatch, worker.batch.store.list_graphs)
    assert [worker.run(item) for item in (first, second)] == ["there", "done"]
    worker.batch.store.list_graphs()
    batch = Batch(root, 0)
    assert set(batch.objects()) == {first.key, second.key}
    assert_same_objects(batch, Batch(tmp_path / "unharmed" / "out", 0))
    assert not [name for name in batch.files() if LEFT_BEHIND.search(name)]
    assert listed(root) == {first.slug, second.slug}


def assert_whole(root: Path, reference: Batch) -> None:
    """Everything is done, as in the reference, stored once and listed, and nothing half-written is left."""
    batch = Batch(root, 0)
    assert_same_objects(batch, reference)
    assert not [name for name in batch.files() if LEFT_BEHIND.search(name)]
    status = Store(root).status(open_batch(root).items)
    assert (status.done, status.failed) == (len(CITIES), 0)
    assert listed(root) == {item.slug for item in read_items(root)}


@pytest.mark.long
def test_twenty_kills_of_each(tmp_path: Path, start: Start, reference: Batch) -> None:
    prompts, root = write_prompts(tmp_path / "p.jsonl", good_rows()), tmp_path / "out"
    kill_and_go_on(20, prompts, root, start, seed=2)
    assert_whole(root, reference)
