"""Engines that run a batch: local processes, a pool of Ray actors, or Slurm jobs through submitit.

There is no queue or lease of our own: results are idempotent, so an engine can lose workers, repeat prompts or be started
twice. The local engine is the standard library's process pool, one process per device.
"""

from __future__ import annotations

import contextlib
import logging
import multiprocessing
import os
import shlex
import sys
import time
import warnings
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from circuit_tracer_cli.batch.plan import PlannedBatch, failure_of
from circuit_tracer_cli.batch.store import ATTEMPTS, FRESH, Item, make_folder
from circuit_tracer_cli.batch.worker import DeviceLost, Outcome, Worker, WorkList, run_share
from circuit_tracer_cli.errors import CircuitTracerError, InvalidValue, MissingExtra

EngineName = Literal["local", "ray", "slurm"]
Told = Callable[[Item, Outcome], None]
"""Called after every prompt with its outcome."""


class WorkerDied(CircuitTracerError):
    """Raised if a worker process ends in the middle of a prompt."""


@dataclass(frozen=True, slots=True)
class Resources:
    """The resources of workers.

    Attributes:
        workers: Number of workers; None for one per device.
        devices: Devices to use; empty for those of the batch's request, which default to all GPUs.
        gpus_per_worker: Ray and Slurm: GPUs per worker; None for one if Ray has GPUs, none on Slurm.
        cpus_per_worker: Ray and Slurm: CPUs per worker.
    """

    workers: int | None = None
    devices: tuple[str, ...] = ()
    gpus_per_worker: float | None = None
    cpus_per_worker: int = 1


def run_local(batch: PlannedBatch, told: Told, resources: Resources) -> None:
    """Run a batch with processes on this machine. A process that dies is replaced, and its prompt tried again.

    Raises:
        CircuitTracerError: An error that affects all prompts, such as a model that can't be loaded.
        KeyboardInterrupt: After ending its processes.
    """
    work = WorkList(batch)
    if not work:
        return
    devices = _devices(batch, resources)[: len(work)]
    threads = _threads(batch, devices)
    with contextlib.ExitStack() as stack:
        idle = [stack.enter_context(_Process(batch.store.root, device, threads)) for device in devices]
        busy: dict[Future[Outcome], tuple[_Process, Item, int]] = {}
        deaths, lived = 0, False
        while True:
            while idle and (item := work.next({item.key for _, item, _ in busy.values()})) is not None:
                process = idle.pop()
                busy[process.submit(item.key)] = process, item, batch.store.attempts(item.key)
            if not busy:
                return
            finished, _ = wait(busy, return_when=FIRST_COMPLETED)
            for future in finished:
                process, item, attempts = busy.pop(future)
                idle.append(process)
                try:
                    outcome, lived = future.result(), True
                except BrokenProcessPool:
                    process.restart()
                    outcome = _after_a_death(
                        batch, item, attempts, "a worker process died while tracing it", _MEMORY
                    )
                    deaths += 1
                if outcome != "failed" or not work.again(item):
                    told(item, outcome)
            if deaths >= 2 * ATTEMPTS and not lived:
                raise WorkerDied(
                    "worker processes die before finishing a prompt",
                    "there may not be enough memory; see circuit-tracer estimate",
                )


_MEMORY = "it may have run out of memory; see circuit-tracer estimate"


def _after_a_death(batch: PlannedBatch, item: Item, attempts: int, message: str, hint: str) -> Outcome:
    """Record that a worker died while tracing a prompt, from a fault in C code or killed by the system.

    Args:
        batch, item: The batch and the prompt.
        attempts: How often the prompt had failed before. If it has failed again since, the worker recorded a better reason
            before it ended, as it does when its device is lost.
        message, hint: What to record otherwise.
    """
    (batch.store.root / "running" / item.key).unlink(missing_ok=True)
    if batch.store.is_done(item.key):
        return "done"
    if batch.store.attempts(item.key) <= attempts:
        batch.store.record_failure(failure_of(item, WorkerDied(message, hint), final=False))
    return "failed"


class _Process:
    """One worker process with its device, started with its first prompt; ended at once if an exception leaves the block."""

    def __init__(self, root: Path, device: str | None, threads: int | None) -> None:
        self._start = (str(root), device, threads)
        self._pool: ProcessPoolExecutor | None = None

    def __enter__(self) -> _Process:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if self._pool is None:
            return
        if kind is None:
            self._pool.shutdown()
            return
        processes = list((self._pool._processes or {}).values())
        self._pool.shutdown(wait=False, cancel_futures=True)
        for process in processes:
            process.terminate()

    def submit(self, key: str) -> Future[Outcome]:
        """Trace one prompt of the batch."""
        if self._pool is None:
            context = multiprocessing.get_context("spawn")
            self._pool = ProcessPoolExecutor(1, context, initializer=_start, initargs=self._start)
        try:
            return self._pool.submit(_run_one, key)
        except BrokenProcessPool:  # it died while idle
            self.restart()
            return self.submit(key)

    def restart(self) -> None:
        """Drop a process that died; the next prompt starts another."""
        if self._pool is not None:
            self._pool.shutdown(wait=False)
            self._pool = None


_worker: Worker | None = None
_items: dict[str, Item] = {}


def _start(root: str, device: str | None, threads: int | None) -> None:
    """Set up a new process: leave Ctrl-C to the parent, end with it, and silence libraries."""
    import signal
    import threading

    global _worker
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    if threads is not None:
        os.environ.setdefault("OMP_NUM_THREADS", str(threads))
    _quiet()
    _worker = Worker(Path(root), device)
    _items.update({item.key: item for item in _worker.batch.items})


def _end_with_parent() -> None:
    """End this process once the parent is gone (killed, say): nothing will read its results."""
    from multiprocessing.connection import wait as wait_for

    parent = multiprocessing.parent_process()
    if parent is not None:
        wait_for([parent.sentinel])
        os._exit(1)


def _quiet() -> None:
    """Silence libraries: several processes share one terminal."""
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)


def _run_one(key: str) -> Outcome:
    assert _worker is not None
    try:
        return _worker.run(_items[key])
    except DeviceLost:
        os._exit(1)  # a new process replaces this one


def _devices(batch: PlannedBatch, resources: Resources) -> list[str | None]:
    """A device for each process: the requested ones, else every GPU, else the CPU."""
    wanted: list[str | None] = list(resources.devices)
    if not wanted and batch.settings.request.device == "auto" and batch.settings.request.device_map is None:
        import torch

        wanted = [f"cuda:{number}" for number in range(torch.cuda.device_count())]
    wanted = wanted or [None]
    count = resources.workers or len(wanted)
    return [wanted[number % len(wanted)] for number in range(count)]


def _threads(batch: PlannedBatch, devices: Sequence[str | None]) -> int | None:
    """Threads per process if several share the CPUs; None for the libraries' default."""
    if len(devices) < 2:
        return None
    return max(
        1, len(os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else devices) // len(devices)
    )


def run_ray(batch: PlannedBatch, told: Told, resources: Resources) -> None:
    """Run a batch with a pool of Ray actors, on the cluster in RAY_ADDRESS or on this machine.

    Ray restarts actors that die, on another node if necessary, and tries their prompt again.

    Raises:
        MissingExtra: Ray isn't installed.
        CircuitTracerError: An error that affects all prompts.
    """
    try:
        import ray
    except ImportError as error:
        raise MissingExtra("Ray isn't installed", "pip install 'circuit-tracer-cli[ray]'") from error
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    started = not ray.is_initialized()
    if started:
        ray.init(address=os.environ.get("RAY_ADDRESS"), log_to_driver=False, logging_level=logging.ERROR)
    try:
        _share_by_ray(ray, batch, told, resources)
    finally:
        if started:
            ray.shutdown()


def _share_by_ray(ray: Any, batch: PlannedBatch, told: Told, resources: Resources) -> None:
    """Give prompts to actors as they become free. If an actor is silent for long, its prompt is also given to another one."""
    gpus = _ray_gpus(ray, batch, resources)
    actor: Any = ray.remote(
        num_cpus=resources.cpus_per_worker, num_gpus=gpus, max_restarts=-1, max_task_retries=ATTEMPTS - 1
    )(_RayWorker)
    work = WorkList(batch)
    count = min(resources.workers or _ray_workers(ray, resources, gpus), max(1, len(work)))
    root = str(batch.store.root.resolve())
    idle: list[Any] = [actor.remote(root) for _ in range(count)]
    busy: dict[Any, tuple[Any, Item, float, int]] = {}

    def give(item: Item) -> None:
        worker = idle.pop()
        busy[worker.run.remote(item.key)] = worker, item, time.monotonic(), batch.store.attempts(item.key)

    settled = set[str]()
    while True:
        while idle and (item := work.next({item.key for _, item, *_ in busy.values()})) is not None:
            give(item)
        open_keys = {item.key for _, item, *_ in busy.values()} - settled
        if not open_keys:
            return
        done, _ = ray.wait(list(busy), num_returns=1, timeout=5)
        for reference in done:
            worker, item, _, attempts = busy.pop(reference)
            idle.append(worker)
            outcome = _ray_outcome(ray, reference, batch, item, attempts)
            if item.key in settled or (outcome == "failed" and work.again(item)):
                continue
            settled.add(item.key)
            told(item, outcome)
        if not done and idle:
            for _, item, since, _ in list(busy.values()):
                silent = time.monotonic() - since > FRESH and not batch.store.is_running(item.key)
                twice = sum(other.key == item.key for _, other, *_ in busy.values()) > 1
                if idle and silent and not twice and item.key not in settled:
                    give(item)


def _ray_gpus(ray: Any, batch: PlannedBatch, resources: Resources) -> float:
    """GPUs per actor: as requested, else one if the cluster has GPUs and the batch isn't for the CPU."""
    if resources.gpus_per_worker is not None:
        return resources.gpus_per_worker
    has_gpus = ray.cluster_resources().get("GPU", 0) >= 1
    return 1.0 if has_gpus and batch.settings.request.device != "cpu" else 0.0


class _RayWorker:
    """The worker as an actor. Ray sets `CUDA_VISIBLE_DEVICES`, so the batch's own device is right."""

    def __init__(self, root: str) -> None:
        _quiet()
        self.worker = Worker(Path(root))
        self.items = {item.key: item for item in self.worker.batch.items}

    def run(self, key: str) -> Outcome:
        """Trace one prompt of the batch."""
        try:
            return self.worker.run(self.items[key])
        except DeviceLost:
            os._exit(1)  # Ray starts another


def _ray_workers(ray: Any, resources: Resources, gpus: float) -> int:
    """As many workers as the cluster has room for now; more nodes can join while it runs."""
    there = ray.cluster_resources()
    by_cpu = int(there.get("CPU", 1) // max(1, resources.cpus_per_worker))
    if gpus:
        return max(1, min(by_cpu, int(there.get("GPU", 0) // gpus)))
    return max(1, len([node for node in ray.nodes() if node["Alive"]]))


def _ray_outcome(ray: Any, reference: Any, batch: PlannedBatch, item: Item, attempts: int) -> Outcome:
    """The outcome of a prompt; an actor that died more often than Ray retries is a temporary failure."""
    try:
        outcome: Outcome = ray.get(reference)
    except ray.exceptions.RayTaskError as error:
        cause = error.cause
        if isinstance(cause, CircuitTracerError):
            raise cause from None
        raise
    except ray.exceptions.RayError as error:
        said = str(error).strip().splitlines()[0]
        return _after_a_death(
            batch, item, attempts, f"its Ray worker died: {said}", "see the logs of the Ray cluster"
        )
    return outcome


@dataclass(frozen=True, slots=True)
class SlurmJob:
    """The settings of a Slurm array.

    Attributes:
        jobs: Number of jobs in the array; each runs its share.
        at_once: Number of jobs that can run at the same time; None for all.
        minutes: Time limit per job.
        partition: Partition; None for the cluster's default.
        cluster: submitit's executor: `slurm`, `local` (local processes) or `debug` (in this process).
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
                raise InvalidValue(f"--slurm-option {name!r} is not name=value", "for example account=me")
        return {name.strip().replace("-", "_"): value for name, _, value in pairs}


def submit_slurm(batch: PlannedBatch, job: SlurmJob, resources: Resources) -> list[Any]:
    """Submit an array of jobs, each of which runs its share of the batch; return submitit's jobs.

    Jobs can be requeued or submitted again at any time: finished prompts are skipped.

    Raises:
        MissingExtra: submitit isn't installed.
        CircuitTracerError: The scheduler refused the jobs.
    """
    try:
        import submitit
    except ImportError as error:
        raise MissingExtra("submitit isn't installed", "pip install 'circuit-tracer-cli[slurm]'") from error
    job.parameters()
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
    """Return a plain Slurm script that runs the batch, to inspect, change and submit by hand."""
    at_once = f"%{job.at_once}" if job.at_once else ""
    logs = batch.store.root.resolve() / "slurm"
    make_folder(logs)  # Slurm doesn't
    lines = [
        "#!/bin/bash",
        "#SBATCH --job-name=circuit-tracer",
        f"#SBATCH --array=0-{job.jobs - 1}{at_once}",
        f"#SBATCH --time={job.minutes}",
        f"#SBATCH --cpus-per-task={resources.cpus_per_worker}",
        "#SBATCH --requeue",
        f"#SBATCH --output={shlex.quote(str(logs / '%A_%a.log'))}",
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
