"""`batch`: trace many prompts on this machine or a cluster, with resuming."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from circuit_tracer_cli.cli import options as opt
from circuit_tracer_cli.cli import request_options as ask
from circuit_tracer_cli.cli.libraries import silence_libraries
from circuit_tracer_cli.cli.output import Output, visible
from circuit_tracer_cli.cli.progress import progress_on
from circuit_tracer_cli.cli.request_options import request_from
from circuit_tracer_cli.errors import CircuitTracerError, InvalidValue, UsageError

if TYPE_CHECKING:
    from circuit_tracer_cli.batch.engines import Resources, SlurmJob
    from circuit_tracer_cli.batch.plan import PlannedBatch
    from circuit_tracer_cli.batch.store import Item, Status

BATCH, CLUSTER = "Batch", "Cluster"
SOME_FAILED = 3
"""Exit code when some prompts failed and the others' results were written."""

PromptsArg = Annotated[
    str,
    typer.Argument(
        metavar="PROMPTS",
        help="Prompts: .jsonl, .csv, or text with one per line. Or the folder of a batch, to continue it.",
    ),
]
OutOpt = Annotated[
    str | None,
    typer.Option("--output", "-o", metavar="DIR", help="Folder of the batch.", rich_help_panel=BATCH),
]
KeepOpt = Annotated[
    Literal["raw", "pruned", "tables"],
    typer.Option(help="What to keep of each graph in addition to the viewer's file.", rich_help_panel=BATCH),
]
StatusOpt = Annotated[
    bool, typer.Option("--status", help="Print the batch's progress and exit.", rich_help_panel=BATCH)
]
WatchOpt = Annotated[
    bool,
    typer.Option("--watch", help="Print the batch's progress until it is finished.", rich_help_panel=BATCH),
]
RetryOpt = Annotated[
    bool,
    typer.Option(
        "--retry", help="Try failed prompts again, even those that failed for good.", rich_help_panel=BATCH
    ),
]
EngineOpt = Annotated[
    Literal["local", "ray", "slurm"],
    typer.Option(
        help="What runs the workers: processes on this machine, Ray, or Slurm.", rich_help_panel=CLUSTER
    ),
]
WorkersOpt = Annotated[
    int | None,
    typer.Option(
        min=1,
        metavar="N",
        show_default="one per device",
        help="Number of workers; with Slurm, of jobs.",
        rich_help_panel=CLUSTER,
    ),
]
DevicesOpt = Annotated[
    str | None,
    typer.Option(
        metavar="LIST",
        show_default="all GPUs",
        help="The workers' devices, such as cuda:0,cuda:2.",
        rich_help_panel=CLUSTER,
    ),
]
GpusOpt = Annotated[
    float | None,
    typer.Option(min=0, metavar="N", help="Ray and Slurm: GPUs per worker.", rich_help_panel=CLUSTER),
]
CpusOpt = Annotated[
    int,
    typer.Option(min=1, metavar="N", help="Ray and Slurm: CPUs per worker.", rich_help_panel=CLUSTER),
]
MinutesOpt = Annotated[
    int,
    typer.Option(min=1, metavar="N", help="Slurm: time limit per job, in minutes.", rich_help_panel=CLUSTER),
]
PartitionOpt = Annotated[
    str | None, typer.Option(metavar="NAME", help="Slurm: partition.", rich_help_panel=CLUSTER)
]
AtOnceOpt = Annotated[
    int | None,
    typer.Option(min=1, metavar="N", help="Slurm: number of jobs that run at once.", rich_help_panel=CLUSTER),
]
SlurmOptionOpt = Annotated[
    list[str] | None,
    typer.Option(
        metavar="NAME=VALUE", help="Slurm: a further sbatch option. Repeatable.", rich_help_panel=CLUSTER
    ),
]
ClusterOpt = Annotated[
    Literal["slurm", "local", "debug"],
    typer.Option(help="submitit's executor; local and debug need no Slurm.", rich_help_panel=CLUSTER),
]
PrintSbatchOpt = Annotated[
    bool, typer.Option("--print-sbatch", help="Print a plain Slurm script and exit.", rich_help_panel=CLUSTER)
]
PartOpt = Annotated[
    str | None, typer.Option(metavar="I/N", hidden=True, help="Trace only one of N shares, for schedulers.")
]


def batch(
    ctx: typer.Context,
    prompts: PromptsArg,
    output_path: OutOpt = None,
    transcoder_set: ask.TranscoderSetOpt = "demo",
    model: ask.ModelOpt = None,
    chat: ask.ChatOpt = False,
    system: ask.SystemOpt = None,
    prefill: ask.PrefillOpt = None,
    target: ask.TargetOpt = None,
    max_n_logits: ask.MaxNLogitsOpt = 10,
    desired_logit_prob: ask.DesiredLogitProbOpt = 0.95,
    max_feature_nodes: ask.MaxFeatureNodesOpt = 7500,
    batch_size: ask.BatchSizeOpt = 256,
    update_interval: ask.UpdateIntervalOpt = 4,
    labels: ask.LabelsOpt = True,
    keep: KeepOpt = "raw",
    node_threshold: opt.NodeThresholdOpt = None,
    edge_threshold: opt.EdgeThresholdOpt = None,
    engine: EngineOpt = "local",
    workers: WorkersOpt = None,
    devices: DevicesOpt = None,
    gpus_per_worker: GpusOpt = None,
    cpus_per_worker: CpusOpt = 1,
    cluster: ClusterOpt = "slurm",
    minutes: MinutesOpt = 240,
    partition: PartitionOpt = None,
    at_once: AtOnceOpt = None,
    slurm_option: SlurmOptionOpt = None,
    print_sbatch: PrintSbatchOpt = False,
    status: StatusOpt = False,
    watch: WatchOpt = False,
    retry: RetryOpt = False,
    part: PartOpt = None,
    dtype: ask.DTypeOpt = "float32",
    precision: ask.PrecisionOpt = "float32",
    device: ask.DeviceOpt = "auto",
    device_map: ask.DeviceMapOpt = None,
    offload: ask.OffloadOpt = "auto",
    lazy_encoder: ask.LazyEncoderOpt = None,
    lazy_decoder: ask.LazyDecoderOpt = None,
    backend: ask.BackendOpt = "auto",
    offline: ask.OfflineOpt = False,
    json_: opt.JsonOpt = False,
    no_progress: opt.NoProgressOpt = False,
    quiet: opt.QuietOpt = False,
) -> None:
    """Trace many prompts, loading the model once per device. Run it again to continue: finished prompts are skipped.

    Writes graphs under names derived from everything that they depend on (objects/), files for the viewer (graphs/), and
    the errors of prompts that failed (errors/). Exits with 3 if some failed.
    """
    output = Output(quiet=quiet, stdout_taken=json_)
    silence_libraries(output, verbose=False, offline=offline)
    source = Path(prompts)
    _check_devices(devices, engine, device, device_map)
    if (engine == "slurm" or print_sbatch) and (gpus_per_worker or 0) % 1:
        raise InvalidValue("Slurm assigns whole GPUs", "use --gpus-per-worker 1")
    if source.is_dir():
        _check_going_on(ctx)
    root = source if source.is_dir() else _folder(output_path)
    if status or watch:
        _follow(root, output, watch=watch, json_=json_)
        return
    from circuit_tracer_cli.batch.engines import Resources, SlurmJob

    resources = Resources(
        workers=workers,
        devices=tuple(name.strip() for name in devices.split(",")) if devices else (),
        gpus_per_worker=gpus_per_worker,
        cpus_per_worker=cpus_per_worker,
    )
    job = SlurmJob(workers or 1, at_once, minutes, partition, cluster, tuple(slurm_option or ()))
    job.parameters()
    if part is not None:
        _run_part(root, part, output)
        return
    planned = _planned(source, root, ctx.params, output)
    from circuit_tracer_cli.batch.worker import forget_failures

    forget_failures(planned, final=retry)
    if print_sbatch:
        from circuit_tracer_cli.batch.engines import sbatch_script

        Output().result(sbatch_script(planned, job, resources).rstrip("\n"))
        return
    _run(planned, engine, job, resources, output, bars=not no_progress)
    _conclude(planned, output, json_=json_)


def _planned(source: Path, root: Path, parsed: Mapping[str, Any], output: Output) -> PlannedBatch:
    """Return the batch of a folder, or make one from a list of prompts. Raises CircuitTracerError."""
    from circuit_tracer_cli.batch.store import check_writable

    if parsed["keep"] == "tables":
        from circuit_tracer_cli.many.tables import connect

        connect().close()  # so a missing package is reported before anything is traced
    with progress_on(output, bars=not parsed["no_progress"]) as progress:
        if source.is_dir():
            from circuit_tracer_cli.batch.worker import open_batch

            planned = open_batch(root)
            check_writable(root)
            return planned
        from circuit_tracer_cli.batch.plan import plan_batch
        from circuit_tracer_cli.batch.prompts import read_prompts

        read = read_prompts(source)
        check_writable(root)
        return plan_batch(
            root,
            read,
            request_from(parsed, prompt=None, command=""),
            keep=parsed["keep"],
            node_threshold=parsed["node_threshold"],
            edge_threshold=parsed["edge_threshold"],
            progress=progress,
        )


OF_A_RUN = {
    "prompts", "engine", "workers", "devices", "gpus_per_worker", "cpus_per_worker", "cluster", "minutes", "partition", "at_once",
    "slurm_option", "print_sbatch", "status", "watch", "retry", "part", "json_", "no_progress", "quiet",
}  # fmt: skip
"""Parameters that concern how the work is run, not what is traced."""


def _check_going_on(ctx: typer.Context) -> None:
    """Raise InvalidValue for an option that was fixed when the batch was made."""
    for parameter in ctx.command.params:
        source = ctx.get_parameter_source(parameter.name or "")
        if parameter.name not in OF_A_RUN and source is not None and source.name == "COMMANDLINE":
            raise InvalidValue(
                f"{parameter.opts[0]} can't be given with a batch's folder: its settings are in batch.json",
                "omit it, or pass the prompt file to check and extend the batch",
            )


def _check_devices(devices: str | None, engine: str, device: str, device_map: str | None) -> None:
    """Raise InvalidValue for contradictory options on where workers run."""
    if devices is None:
        return
    if device != "auto" or device_map is not None:
        raise InvalidValue("--devices, --device and --device-map exclude each other", "use only one of them")
    if not all(name.strip() for name in devices.split(",")):
        raise InvalidValue(
            f"--devices {devices!r} contains an empty name", "for example --devices cuda:0,cuda:2"
        )
    if engine != "local":
        raise InvalidValue(
            f"--devices is for workers on this machine, not for --engine {engine}", "use --gpus-per-worker"
        )


def _folder(output_path: str | None) -> Path:
    if output_path is None:
        raise UsageError("no folder is named for the batch", "name one with -o DIR")
    return Path(output_path)


def _run_part(root: Path, part: str, output: Output) -> None:
    from circuit_tracer_cli.batch.worker import run_share

    match = re.fullmatch(r"(\d+)/(\d+)", part)
    if match is None or int(match[1]) >= int(match[2]):
        raise InvalidValue(f"--part {part!r} is not I/N with I less than N", "for example --part 0/4")
    counts = run_share(root, int(match[1]), int(match[2]))
    output.note(", ".join(f"{count} {name}" for name, count in counts.items()))
    if counts["failed"]:
        raise typer.Exit(SOME_FAILED)


def _run(
    planned: PlannedBatch, engine: str, job: SlurmJob, resources: Resources, output: Output, *, bars: bool
) -> None:
    """Trace what is left of the batch, showing progress."""
    from circuit_tracer_cli.batch import engines

    if engine == "slurm":
        jobs = engines.submit_slurm(planned, job, resources)
        output.note(f"submitted    {len(jobs)} jobs: {', '.join(str(one.job_id) for one in jobs[:4])}")
        if job.cluster == "slurm":
            output.note(f"next: circuit-tracer batch {planned.store.root} --watch")
            return
        errors = [error for one in jobs if (error := one.exception()) is not None]
        if errors:
            raise CircuitTracerError(
                f"{len(errors)} of {len(jobs)} jobs failed: {str(errors[0]).strip().splitlines()[-1]}",
                f"their logs are in {planned.store.root / 'slurm'}",
            )
        return
    left = planned.open_items()
    output.note(f"{len(left)} of {len(planned.items)} prompts to trace")
    if not left:
        return
    run = engines.run_ray if engine == "ray" else engines.run_local
    with _progress_of(len(left), output, bars=bars) as report:
        run(planned, report, resources)


@contextmanager
def _progress_of(total: int, output: Output, *, bars: bool) -> Iterator[Any]:
    """Yield the callback for finished prompts: it moves a bar with rate and remaining time, or prints a line now and then."""
    with progress_on(output, bars=bars) as progress:
        progress.phase("prompts", total)
        begun = last = time.monotonic()
        counts = {"done": 0, "failed": 0, "there": 0}

        def report(item: Item, outcome: str) -> None:
            nonlocal last
            counts[outcome] += 1
            progress.advance()
            number, now = sum(counts.values()), time.monotonic()
            if outcome == "failed":
                progress.note(f"failed       {visible(str(item.record['prompt']), 60)}")
            if now - last > 10 or number == total:
                last, each = now, (now - begun) / number
                progress.note(
                    f"{number}/{total} prompts, {counts['failed']} failed, "
                    f"{each:.2f} s each, {each * (total - number):.0f} s left"
                )

        yield report


def _follow(root: Path, output: Output, *, watch: bool, json_: bool) -> None:
    """Print a batch's progress, once or until it is finished."""
    from circuit_tracer_cli.batch.worker import open_batch

    planned = open_batch(root)
    store, items = planned.store, planned.items
    status = store.status(items)
    last = ""
    while watch and (status.running or status.waiting or status.retried):
        if (line := _line(status)) != last:
            output.note(line)
            last = line
        time.sleep(2)
        status = store.status(items)
    if json_:
        Output().data(status.to_dict())
    else:
        _print_status(status, output)
    if status.failed:
        raise typer.Exit(SOME_FAILED)


def _conclude(planned: PlannedBatch, output: Output, *, json_: bool) -> None:
    planned.store.list_graphs()
    status = planned.store.status(planned.items)
    if json_:
        Output().data(status.to_dict())
    else:
        _print_status(status, output)
    root = planned.store.root
    output.note(f"next: circuit-tracer serve {root}")
    if status.failed:
        raise typer.Exit(SOME_FAILED)


def _line(status: Status) -> str:
    return f"{status.done} of {status.total} done, {status.failed} failed, {status.running} running, {status.waiting} waiting"


def _print_status(status: Status, output: Output) -> None:
    output.result(_line(status))
    for failure in status.failures:
        output.result(f"failed       {visible(failure.prompt, 60)}")
        output.result(f"             {failure.error}")
        if failure.hint:
            output.result(f"             {failure.hint}")
