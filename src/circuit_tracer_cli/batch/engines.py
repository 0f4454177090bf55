"""Who works a batch off: processes here, a pool of Ray actors, or Slurm jobs through submitit.

No queue and no leases of our own: results are idempotent, so whoever shares the work out may lose workers, repeat prompts or be
started twice. The local engine is the standard library's process pool, one process per device.
"""

from __future__ import annotations

import contextlib
import logging
import multiprocessing
import os
import shlex
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from circuit_tracer_cli.batch.plan import PlannedBatch, failure_of
from circuit_tracer_cli.batch.store import ATTEMPTS, Item, make_folder
from circuit_tracer_cli.batch.worker import Outcome, Worker, run_share
from circuit_tracer_cli.errors import CircuitTracerError, InvalidValue, MissingExtra

if TYPE_CHECKING:
    from multiprocessing.queues import SimpleQueue

EngineName = Literal["local", "ray", "slurm"]
Told = Callable[[Item, Outcome], None]
"""Called after every prompt with what came of it."""


class WorkerDied(CircuitTracerError):
    """A worker process ended in the middle of a prompt."""


@dataclass(frozen=True, slots=True)
class Resources:
    """What workers get.

    Attributes:
        workers: How many; None for one per device.
        devices: Devices to work on; empty for those of the batch's request, all GPUs where there are any.
        gpus_per_worker: Ray and Slurm: GPUs of each worker.
        cpus_per_worker: Ray and Slurm: processors of each worker.
    """

    workers: int | None = None
    devices: tuple[str, ...] = ()
    gpus_per_worker: float = 0
    cpus_per_worker: int = 1


def run_local(batch: PlannedBatch, told: Told, resources: Resources) -> None:
    """Work off a batch with processes on this machine. A process that dies is replaced, its prompt tried again.

    Raises:
        CircuitTracerError: What concerns all prompts, such as a model that can't be loaded.
        KeyboardInterrupt: Its processes are ended first.
    """
    items = {item.key: item for item in batch.open_items()}
    devices = _devices(batch, resources)
    deaths: dict[str, int] = {}
    while items:
        with _pool(batch.store.root, devices) as pool:
            futures = {pool.submit(_run_one, item.key): item for item in items.values()}
            if not _collect(batch, futures, items, deaths, told):
                return


def _collect(
    batch: PlannedBatch,
    futures: dict[Future[Outcome], Item],
    items: dict[str, Item],
    deaths: dict[str, int],
    told: Told,
) -> bool:
    """Take results as they come; True if the pool broke and has to be made again for what is left in `items`."""
    pending = set(futures)
    while pending:
        finished, pending = wait(pending, return_when=FIRST_COMPLETED)
        for future in finished:
            item = futures[future]
            try:
                outcome = future.result()
            except BrokenProcessPool:
                _after_a_death(batch, items, deaths, told)
                return bool(items)
            items.pop(item.key, None)
            told(item, outcome)
    return False


def _after_a_death(batch: PlannedBatch, items: dict[str, Item], deaths: dict[str, int], told: Told) -> None:
    """A worker died, from a fault in C code or by the system: whatever was being worked on may be why."""
    for item in list(items.values()):
        if batch.store.is_done(item.key):
            items.pop(item.key)
            told(item, "done")
        elif (batch.store.root / "running" / item.key).exists():
            (batch.store.root / "running" / item.key).unlink(missing_ok=True)
            deaths[item.key] = deaths.get(item.key, 0) + 1
            if deaths[item.key] >= ATTEMPTS:
                items.pop(item.key)
                error = WorkerDied(
                    "a worker process ended without a word while tracing it",
                    "it may have run out of memory; see circuit-tracer estimate",
                )
                batch.store.record_failure(failure_of(item, error, final=False))
                told(item, "failed")


@contextlib.contextmanager
def _pool(root: Path, devices: Sequence[str | None]) -> Iterator[ProcessPoolExecutor]:
    """Processes, each with a device; ended at once when the block is left by an exception."""
    context = multiprocessing.get_context("spawn")
    queue = context.SimpleQueue()
    for device in devices:
        queue.put(device)
    pool = ProcessPoolExecutor(len(devices), context, initializer=_start, initargs=(str(root), queue))
    try:
        yield pool
    except BaseException:
        pool.shutdown(wait=False, cancel_futures=True)
        for process in (pool._processes or {}).values():
            process.terminate()
        raise
    else:
        pool.shutdown(wait=True, cancel_futures=True)


_worker: Worker | None = None
_items: dict[str, Item] = {}


def _start(root: str, queue: SimpleQueue[str | None]) -> None:
    """In a new process: take a device, leave Ctrl-C to the parent, and keep libraries quiet."""
    import signal

    global _worker
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _quiet()
    _worker = Worker(Path(root), queue.get())
    _items.update({item.key: item for item in _worker.batch.items})


def _quiet() -> None:
    """Keep libraries from talking: several processes share one terminal."""
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)


def _run_one(key: str) -> Outcome:
    assert _worker is not None
    return _worker.run(_items[key])


def _devices(batch: PlannedBatch, resources: Resources) -> list[str | None]:
    """A device for each process: the ones asked for, else every GPU, else this machine's processors together."""
    wanted: list[str | None] = list(resources.devices)
    if not wanted and batch.settings.request.device == "auto" and batch.settings.request.device_map is None:
        import torch

        wanted = [f"cuda:{number}" for number in range(torch.cuda.device_count())]
    wanted = wanted or [None]
    count = resources.workers or len(wanted)
    return [wanted[number % len(wanted)] for number in range(count)]


def run_ray(batch: PlannedBatch, told: Told, resources: Resources) -> None:
    """Work off a batch with a pool of Ray actors, on the cluster that RAY_ADDRESS names or on this machine.

    Ray restarts actors that die, elsewhere if their node is gone, and tries their prompt again.

    Raises:
        MissingExtra: Ray isn't installed.
        CircuitTracerError: What concerns all prompts.
    """
    try:
        import ray
    except ImportError as error:
        raise MissingExtra("Ray isn't installed", "pip install 'circuit-tracer-cli[ray]'") from error
    started = not ray.is_initialized()
    if started:
        ray.init(address=os.environ.get("RAY_ADDRESS"), log_to_driver=False, logging_level=logging.ERROR)
    try:
        actor: Any = ray.remote(
            num_cpus=resources.cpus_per_worker,
            num_gpus=resources.gpus_per_worker,
            max_restarts=-1,
            max_task_retries=ATTEMPTS - 1,
        )(_RayWorker)
        items = batch.open_items()
        count = min(resources.workers or _ray_workers(ray, resources), max(1, len(items)))
        root = str(batch.store.root.resolve())
        idle: list[Any] = [actor.remote(root) for _ in range(count)]
        busy: dict[Any, tuple[Any, Item]] = {}
        waiting = list(reversed(items))
        while waiting or busy:
            while waiting and idle:
                item, worker = waiting.pop(), idle.pop()
                busy[worker.run.remote(item.key)] = (worker, item)
            done, _ = ray.wait(list(busy), num_returns=1)
            worker, item = busy.pop(done[0])
            idle.append(worker)
            told(item, _ray_outcome(ray, done[0], batch, item))
    finally:
        if started:
            ray.shutdown()


class _RayWorker:
    """The same worker as an actor. `CUDA_VISIBLE_DEVICES` is Ray's, so the batch's own device is right."""

    def __init__(self, root: str) -> None:
        _quiet()
        self.worker = Worker(Path(root))
        self.items = {item.key: item for item in self.worker.batch.items}

    def run(self, key: str) -> Outcome:
        """Trace one prompt of the batch."""
        return self.worker.run(self.items[key])


def _ray_workers(ray: Any, resources: Resources) -> int:
    """As many workers as the cluster has room for now; more nodes may come while it runs."""
    there = ray.cluster_resources()
    by_cpu = int(there.get("CPU", 1) // max(1, resources.cpus_per_worker))
    if resources.gpus_per_worker:
        return max(1, min(by_cpu, int(there.get("GPU", 0) // resources.gpus_per_worker)))
    return max(1, len([node for node in ray.nodes() if node["Alive"]]))


def _ray_outcome(ray: Any, reference: Any, batch: PlannedBatch, item: Item) -> Outcome:
    """What came of a prompt; an actor that died more often than Ray tries again is a failure that may pass."""
    try:
        outcome: Outcome = ray.get(reference)
    except ray.exceptions.RayTaskError as error:
        cause = error.cause
        if isinstance(cause, CircuitTracerError):
            raise cause from None
        raise
    except ray.exceptions.RayError as error:
        if batch.store.is_done(item.key):
            return "done"
        died = WorkerDied(
            f"its Ray worker died: {str(error).strip().splitlines()[0]}", "see the logs of the Ray cluster"
        )
        batch.store.record_failure(failure_of(item, died, final=False))
        return "failed"
    return outcome


@dataclass(frozen=True, slots=True)
class SlurmJob:
    """How a Slurm array is asked for.

    Attributes:
        jobs: Jobs of the array; each works off its share.
        at_once: Jobs that may run at the same time; None for all.
        minutes: Time limit of each.
        partition: Where; None for the cluster's default.
        cluster: submitit's executor: `slurm`, `local` (processes here) or `debug` (in this process).
        extra: Further `#SBATCH` options, `name=value`.
    """

    jobs: int = 1
    at_once: int | None = None
    minutes: int = 240
    partition: str | None = None
    cluster: Literal["slurm", "local", "debug"] = "slurm"
    extra: tuple[str, ...] = ()

    def parameters(self) -> dict[str, str]:
        """The extra options by name. Raises InvalidValue for one that isn't `name=value`."""
        pairs = [text.partition("=") for text in self.extra]
        for name, equals, _ in pairs:
            if not equals or not name.strip():
                raise InvalidValue(f"--slurm-option {name!r} isn't name=value", "for example account=me")
        return {name.strip().replace("-", "_"): value for name, _, value in pairs}


def submit_slurm(batch: PlannedBatch, job: SlurmJob, resources: Resources) -> list[Any]:
    """Submit an array of jobs, each of which works off its share of the batch; returns submitit's jobs.

    Jobs may be requeued or submitted again at will: what is done is passed over.

    Raises:
        MissingExtra: submitit isn't installed.
        CircuitTracerError: The scheduler refuses the jobs.
    """
    try:
        import submitit
    except ImportError as error:
        raise MissingExtra("submitit isn't installed", "pip install 'circuit-tracer-cli[slurm]'") from error
    root = batch.store.root.resolve()
    make_folder(root / "slurm")
    executor = submitit.AutoExecutor(folder=root / "slurm" / "%j", cluster=job.cluster)
    values: dict[str, Any] = {"name": "circuit-tracer", "timeout_min": job.minutes}
    if job.cluster == "slurm":
        values["cpus_per_task"] = resources.cpus_per_worker
        values["slurm_array_parallelism"] = job.at_once or job.jobs
        if resources.gpus_per_worker:
            values["gpus_per_node"] = int(resources.gpus_per_worker)
        if job.partition:
            values["slurm_partition"] = job.partition
        if job.extra:
            values["slurm_additional_parameters"] = job.parameters()
    executor.update_parameters(**values)
    try:
        return list(
            executor.map_array(run_share, [root] * job.jobs, list(range(job.jobs)), [job.jobs] * job.jobs)
        )
    except (RuntimeError, OSError, submitit.core.utils.FailedJobError) as error:
        raise CircuitTracerError(
            f"the jobs can't be submitted: {str(error).splitlines()[0]}",
            "--print-sbatch writes a script that needs no submitit",
        ) from error


def sbatch_script(batch: PlannedBatch, job: SlurmJob, resources: Resources) -> str:
    """A plain Slurm script that works the batch off, to be looked at, changed and submitted by hand."""
    at_once = f"%{job.at_once}" if job.at_once else ""
    lines = [
        "#!/bin/bash",
        "#SBATCH --job-name=circuit-tracer",
        f"#SBATCH --array=0-{job.jobs - 1}{at_once}",
        f"#SBATCH --time={job.minutes}",
        f"#SBATCH --cpus-per-task={resources.cpus_per_worker}",
        "#SBATCH --requeue",
        f"#SBATCH --output={batch.store.root.resolve() / 'slurm' / '%A_%a.log'}",
    ]
    if resources.gpus_per_worker:
        lines.append(f"#SBATCH --gpus-per-node={int(resources.gpus_per_worker)}")
    if job.partition:
        lines.append(f"#SBATCH --partition={job.partition}")
    lines += [f"#SBATCH --{name.replace('_', '-')}={value}" for name, value in job.parameters().items()]
    command = shlex.join(
        [sys.executable, "-m", "circuit_tracer_cli", "batch", str(batch.store.root.resolve())]
    )
    lines += ["set -eu", f"{command} --part ${{SLURM_ARRAY_TASK_ID}}/{job.jobs}"]
    return "\n".join(lines) + "\n"
