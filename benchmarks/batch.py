"""Seconds per prompt in a batch against one command per prompt, and one worker against two, on the demo.

python -m benchmarks.batch [--prompts N] [--singles N]

Both are measured in one run on one thread per process, since other load on the machine then weighs on both. Processor seconds are
of all processes together.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from circuit_tracer_cli.demo import questions

PROGRAM = (sys.executable, "-m", "circuit_tracer_cli")
ONE_THREAD = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}


def prompts(count: int) -> list[str]:
    """Two-hop questions of the demo."""
    asked = [one.prompt for _, _, group in questions() for one in group]
    return list(dict.fromkeys(asked))[:count]


def timed(arguments: list[str]) -> tuple[float, float]:
    """Run a command line; returns seconds on the clock and of processors."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    begin = time.perf_counter()
    subprocess.run(
        [*PROGRAM, *arguments],
        env={**os.environ, **ONE_THREAD},
        check=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    wall = time.perf_counter() - begin
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def measure(n_prompts: int, n_singles: int) -> dict[str, float]:
    """Seconds per prompt: single commands, a batch, and batches of one and two workers."""
    listed = prompts(n_prompts)
    results: dict[str, float] = {"prompts": len(listed), "single commands": n_singles}
    with tempfile.TemporaryDirectory() as scratch:
        root = Path(scratch)
        file = root / "prompts.csv"
        with file.open("w", newline="", encoding="utf-8") as stream:
            csv.writer(stream).writerows([["prompt"], *([one] for one in listed)])
        to = ["--graph-file-dir", str(root / "graphs"), "--quiet"]
        singles = [
            timed(["attribute", "-p", one, "-o", str(root / f"{i}.pt"), "--slug", f"s{i}", *to])
            for i, one in enumerate(listed[:n_singles])
        ]
        results["single: seconds per prompt"] = sum(wall for wall, _ in singles) / n_singles
        results["single: processor seconds per prompt"] = sum(cpu for _, cpu in singles) / n_singles
        for workers in (1, 2):
            wall, cpu = timed(
                ["batch", str(file), "-o", str(root / f"of-{workers}"), "--workers", str(workers), "--quiet"]
            )
            results[f"batch, {workers} workers: seconds per prompt"] = wall / len(listed)
            results[f"batch, {workers} workers: processor seconds per prompt"] = cpu / len(listed)
    results["warm against cold"] = (
        results["single: processor seconds per prompt"]
        / results["batch, 1 workers: processor seconds per prompt"]
    )
    results["two workers against one"] = (
        results["batch, 1 workers: seconds per prompt"] / results["batch, 2 workers: seconds per prompt"]
    )
    return {name: round(value, 3) for name, value in results.items()}


def main() -> None:
    """Print the numbers as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--prompts", type=int, default=100)
    parser.add_argument("--singles", type=int, default=4)
    arguments = parser.parse_args()
    print(json.dumps(measure(arguments.prompts, arguments.singles), indent=1))


if __name__ == "__main__":
    main()
