"""Two commits measured in turns in one run, so that a busy machine is unfair to both alike.

python -m benchmarks.compare OLD NEW -- --kinds plt --tokens 48 --threads 1 --cpu-time

The benchmark is that of this checkout; only the package comes from the commits.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.tables import markdown

ROOT = Path(__file__).resolve().parent.parent


def checked_out(commit: str, folder: Path) -> Path:
    """A worktree of a commit."""
    subprocess.run(
        ["git", "worktree", "add", "--quiet", "--detach", str(folder), commit], cwd=ROOT, check=True
    )
    return folder


def run_once(tree: Path, options: list[str], result: Path) -> list[dict[str, Any]]:
    """The benchmark's results with the package of a worktree.

    It runs in this checkout, whose benchmark would else be hidden by the worktree's own.
    """
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tree / "src"), str(ROOT)])}
    command = [sys.executable, "-m", "benchmarks.run", *options, "--json", str(result)]
    subprocess.run(command, cwd=ROOT, env=environment, check=True, stdout=subprocess.DEVNULL)
    results: list[dict[str, Any]] = json.loads(result.read_text(encoding="utf-8"))
    foreign = {found.pop("package") for found in results} - {str(tree / "src" / "circuit_tracer_cli")}
    if foreign:
        raise RuntimeError(f"measured {foreign.pop()} instead of {tree}")
    return results


def compared(runs: dict[str, list[list[dict[str, Any]]]]) -> list[dict[str, Any]]:
    """One line per case: medians of both, and the median of the ratios within a round."""
    old, new = runs.values()
    lines = []
    for place, first in enumerate(new[0]):
        line: dict[str, Any] = {name: first[name] for name in ("model", "kind", "tokens", "rows")}
        for what in ("total_s", "rows_over_floor", "call_over_floor", "host_gib"):
            before = [run[place][what] for run in old]
            after = [run[place][what] for run in new]
            line[f"{what} before"], line[f"{what} after"] = (
                statistics.median(before),
                statistics.median(after),
            )
        ratios = [a[place]["total_s"] / b[place]["total_s"] for a, b in zip(new, old, strict=True)]
        line["after/before"] = statistics.median(ratios)
        lines.append(line)
    return lines


def main() -> None:
    """Measure and print; `--json` also writes the numbers of every round."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("old")
    parser.add_argument("new")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path)
    words = sys.argv[1:]
    split = words.index("--") if "--" in words else len(words)
    arguments, options = parser.parse_args(words[:split]), words[split + 1 :]
    runs: dict[str, list[list[dict[str, Any]]]] = {"old": [], "new": []}
    with tempfile.TemporaryDirectory() as folder:
        trees = {name: Path(folder) / name for name in runs}
        try:
            for name, tree in trees.items():
                checked_out(getattr(arguments, name), tree)
            for number in range(arguments.rounds):
                for name in list(runs) if number % 2 == 0 else reversed(list(runs)):
                    runs[name].append(run_once(trees[name], options, Path(folder) / "result.json"))
                    if arguments.json:
                        record = {"old": arguments.old, "new": arguments.new, "options": options, **runs}
                        arguments.json.write_text(json.dumps(record, indent=1), encoding="utf-8")
        finally:
            for tree in trees.values():
                subprocess.run(["git", "worktree", "remove", "--force", str(tree)], cwd=ROOT, check=False)
    print(markdown(compared(runs)))


if __name__ == "__main__":
    main()
