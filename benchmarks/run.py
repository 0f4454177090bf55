"""Phase times of `attribute` on random models of real shapes, against the floor of this machine in the same run.

python -m benchmarks.run --kinds plt clt --tokens 16 48 256 --threads 1
"""

from __future__ import annotations

import argparse
import json
import platform
import resource
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from benchmarks.floor import gemm_rate, row_flops
from benchmarks.shapes import Shape, random_model, random_prompt
from circuit_tracer_cli.attribution.attribute import Stopwatch, attribute
from circuit_tracer_cli.replacement import ReplacementModel

ROWS = {"plt": 1000, "clt": 500}


def peak_gib(device: torch.device) -> float:
    """Peak memory of the process, or of the device, so far."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated() / 2**30
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def measure(
    model: ReplacementModel, kind: str, n_tokens: int, n_rows: int, shape: Shape, clock: Callable[[], float]
) -> dict[str, Any]:
    """One case, with the speed of matrix products measured just before."""
    rate = gemm_rate(model.device, shape.d_model, clock)
    prompt = random_prompt(n_tokens)
    start = clock()
    graph = attribute(prompt, model, max_feature_nodes=n_rows, batch_size=256, max_n_logits=10)
    total = clock() - start
    timings = graph.metadata["timings"]
    rows_time = timings["logit rows"] + timings["feature rows"]
    floor = row_flops(graph, shape, kind) / rate
    n_rows = len(graph.selected_features) + len(graph.logit_targets)
    return {
        "kind": kind,
        "tokens": n_tokens,
        "rows": n_rows,
        "active": len(graph.active_features),
        "edges": graph.edges.nnz,
        "seconds": timings,
        "total_s": total,
        "rows_per_s": n_rows / rows_time,
        "gemm_gflops": rate / 1e9,
        "floor_s": floor,
        "rows_over_floor": rows_time / floor,
        "call_over_floor": total / floor,
        "peak_gib": peak_gib(model.device),
    }


def table(results: list[dict[str, Any]]) -> str:
    """The results as Markdown."""
    phases = list(results[0]["seconds"])
    head = [
        "kind",
        "tokens",
        "rows",
        "active",
        *phases,
        "total",
        "rows/s",
        "floor s",
        "rows/floor",
        "call/floor",
        "GiB",
    ]
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    for r in results:
        cells = [r["kind"], r["tokens"], r["rows"], r["active"], *(f"{r['seconds'][p]:.2f}" for p in phases)]
        cells += [f"{r['total_s']:.2f}", f"{r['rows_per_s']:.0f}", f"{r['floor_s']:.2f}"]
        cells += [f"{r['rows_over_floor']:.2f}", f"{r['call_over_floor']:.2f}", f"{r['peak_gib']:.1f}"]
        lines.append("| " + " | ".join(map(str, cells)) + " |")
    return "\n".join(lines)


def main() -> None:
    """Measure and print; `--json` also writes the numbers."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--kinds", nargs="+", default=["plt", "clt"], choices=list(ROWS))
    parser.add_argument("--tokens", nargs="+", type=int, default=[16, 48, 256])
    parser.add_argument("--rows", type=int, help="feature rows (default 1000 for plt, 500 for clt)")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", default="float32")
    parser.add_argument(
        "--cpu-time", action="store_true", help="time of this process alone, for a busy machine; one thread"
    )
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    clock = time.process_time if arguments.cpu_time else time.perf_counter
    Stopwatch.clock = staticmethod(clock)
    shape, device = Shape(), torch.device(arguments.device)
    results = []
    for kind in arguments.kinds:
        model = random_model(kind, shape, device, getattr(torch, arguments.dtype))
        attribute(random_prompt(8), model, max_feature_nodes=16, batch_size=16)
        for n_tokens in arguments.tokens:
            results.append(measure(model, kind, n_tokens, arguments.rows or ROWS[kind], shape, clock))
            print(table(results[-1:]).splitlines()[-1], flush=True)
        del model
    print(
        f"\ntorch {torch.__version__}, {platform.machine()}, {arguments.threads} thread(s), {arguments.device}\n"
    )
    print(table(results))
    if arguments.json:
        arguments.json.write_text(json.dumps(results, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
