"""Phase times of `attribute` on random models of real shapes, against the floor of this machine in the same run.

python -m benchmarks.run --kinds plt clt --tokens 16 48 256 --threads 1
python -m benchmarks.run --models gemma-2-2b --layers 6 --tokens 64 1024 --cpu-time --threads 1
"""

from __future__ import annotations

import argparse
import contextlib
import json
import platform
import resource
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

import circuit_tracer_cli
from benchmarks.floor import call_floor, copy_rate, gemm_rate
from benchmarks.shapes import SHAPES, Shape, random_model, random_prompt
from benchmarks.tables import markdown
from circuit_tracer_cli.attribution.attribute import Stopwatch, attribute
from circuit_tracer_cli.replacement import ReplacementModel

ROWS = {"plt": 1000, "clt": 500}


@dataclass(frozen=True, slots=True)
class Case:
    """What is traced; `rows` 0 means all features."""

    model: str
    shape: Shape
    kind: str
    tokens: int
    rows: int


def synchronised(device: torch.device) -> Callable[[], float]:
    """Wall time once a device has done all that it was told to, so that no phase's work is counted in the next."""

    def clock() -> float:
        torch.cuda.synchronize(device)
        return time.perf_counter()

    return clock


def forget_host_peak() -> None:
    """Begin to count this process's peak memory anew, where the system can."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")


def host_peak() -> int:
    """Most bytes of this process in memory since the count began; since its start where the system can't begin anew."""
    try:
        lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))
    except OSError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def measure(case: Case, model: ReplacementModel, clock: Callable[[], float]) -> dict[str, Any]:
    """One case, with the speed of matrix products and of copies measured just before and after."""
    device, shape = model.device, case.shape
    rate, copies = gemm_rate(device, shape.d_model, clock), copy_rate(device, clock)
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    forget_host_peak()
    prompt = random_prompt(case.tokens, model.device)
    start = clock()
    graph = attribute(prompt, model, max_feature_nodes=case.rows, batch_size=256, max_n_logits=10)
    total = clock() - start
    rate, copies = (
        max(rate, gemm_rate(device, shape.d_model, clock)),
        max(copies, copy_rate(device, clock)),
    )
    timings = graph.metadata["timings"]
    seconds = {**timings, "rows": timings["logit rows"] + timings["feature rows"]}
    floors = {
        name: max(flops / rate, size / copies)
        for name, (flops, size) in call_floor(graph, shape, case.kind).items()
    }
    n_rows = len(graph.selected_features) + len(graph.logit_targets)
    return {
        "package": str(Path(circuit_tracer_cli.__file__).parent),
        "model": case.model,
        "kind": case.kind,
        "tokens": case.tokens,
        "rows": n_rows,
        "active": len(graph.active_features),
        "edges": graph.edges.nnz,
        "seconds": seconds,
        "floors": floors,
        "total_s": total,
        "rows_per_s": n_rows / seconds["rows"],
        "gemm_gflops": rate / 1e9,
        "copy_gbps": copies / 1e9,
        "rows_over_floor": seconds["rows"] / floors["rows"],
        "call_over_floor": total / floors["rows"],
        "device_gib": torch.cuda.max_memory_allocated(device) / 2**30 if device.type == "cuda" else 0.0,
        "host_gib": host_peak() / 2**30,
    }


PHASES = ("forward pass", "active features", "source vectors", "rows", "packaging")


def table_row(r: dict[str, Any]) -> dict[str, Any]:
    """A result for the table: of each phase the seconds, and the share of the machine's ceiling that it reached.

    `call/floor` holds the whole call against the floor of its rows alone, `of all floors` the floors of all phases against it.
    """
    phases = {
        name: f"{r['seconds'][name]:.2f} ({min(9.99, r['floors'][name] / max(r['seconds'][name], 1e-9)):.0%})"
        for name in PHASES
    }
    return {
        **{name: r[name] for name in ("model", "kind", "tokens", "rows", "active")},
        **phases,
        "total s": r["total_s"],
        "rows/s": r["rows_per_s"],
        "rows/floor": r["rows_over_floor"],
        "call/floor": r["call_over_floor"],
        "of all floors": f"{sum(r['floors'].values()) / r['total_s']:.0%}",
        **({"device GiB": r["device_gib"]} if r["device_gib"] else {}),
        "host GiB": r["host_gib"],
    }


def parsed() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--models", nargs="+", default=["bench"], choices=list(SHAPES))
    parser.add_argument("--layers", type=int, help="build only so many layers, where the whole doesn't fit")
    parser.add_argument("--kinds", nargs="+", default=["plt", "clt"], choices=list(ROWS))
    parser.add_argument("--tokens", nargs="+", type=int, default=[16, 48, 256])
    parser.add_argument(
        "--rows", type=int, help="feature rows (default 1000 for plt, 500 for clt; 0 for all)"
    )
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--tf32", action="store_true", help="let CUDA multiply in TF32")
    parser.add_argument(
        "--cpu-time", action="store_true", help="time of this process alone, for a busy machine; one thread"
    )
    parser.add_argument("--json", type=Path)
    return parser.parse_args()


def main() -> None:
    """Measure and print; `--json` also writes the numbers."""
    arguments = parsed()
    torch.set_num_threads(arguments.threads)
    if arguments.tf32:
        torch.set_float32_matmul_precision("high")
    device, results = torch.device(arguments.device), []
    clock = time.process_time if arguments.cpu_time else time.perf_counter
    if device.type == "cuda":
        clock = synchronised(device)
    Stopwatch.clock = staticmethod(clock)
    for name in arguments.models:
        shape = SHAPES[name]
        if arguments.layers is not None and arguments.layers < shape.n_layers:
            shape, name = (
                replace(shape, n_layers=arguments.layers),
                f"{name}, {arguments.layers} of {shape.n_layers} layers",
            )
        for kind in arguments.kinds:
            model = random_model(kind, shape, device, getattr(torch, arguments.dtype))
            attribute(random_prompt(8, device), model, max_feature_nodes=16, batch_size=16)
            for n_tokens in arguments.tokens:
                rows = ROWS[kind] if arguments.rows is None else arguments.rows
                results.append(measure(Case(name, shape, kind, n_tokens, rows), model, clock))
                print(markdown([table_row(results[-1])]).splitlines()[-1], flush=True)
            del model
    where = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.machine()
    timed = "processor time" if arguments.cpu_time else "wall time"
    print(
        f"\ntorch {torch.__version__}, {where}, {arguments.threads} thread(s), {arguments.dtype}, {timed}\n"
    )
    print(markdown([table_row(result) for result in results]))
    if arguments.json:
        arguments.json.write_text(json.dumps(results, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
