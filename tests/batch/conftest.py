"""A small batch of the demo, worked off once by each way that the tests compare."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from circuit_tracer_cli.batch.store import read_items
from circuit_tracer_cli.cli.app import run

SOURCE = Path(__file__).resolve().parents[2] / "src"
TEMPLATE = "The capital of the state containing {city} is"
CITIES = ("Dallas", "Oakland", "Miami", "Seattle")
SETTINGS = ("--max-feature-nodes", "60", "--max-n-logits", "3", "--offline")


@dataclass(frozen=True)
class Batch:
    """A finished batch's folder and the exit code."""

    root: Path
    code: int

    def objects(self) -> dict[str, Path]:
        """Stored graphs by name."""
        return {path.stem: path for path in (self.root / "objects").rglob("*.safetensors")}

    def files(self) -> set[str]:
        """Names of all files, hidden ones included."""
        return {path.name for path in self.root.rglob("*") if path.is_file()}


def write_prompts(path: Path, rows: Sequence[dict[str, object]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def good_rows() -> list[dict[str, object]]:
    return [{"template": TEMPLATE, "city": city, "target": "Austin"} for city in CITIES]


def bad_rows() -> list[dict[str, object]]:
    """A duplicate, a target that the vocabulary lacks, a prompt that is too long, targets of two kinds."""
    return [
        {"prompt": TEMPLATE.format(city="Dallas"), "target": "Austin", "slug": "again"},
        {"prompt": "The capital of Texas is", "target": "Zanzibar99"},
        {"prompt": "The capital of Texas is " + "word " * 80},
        {"prompt": "The capital of Texas is", "targets": ["Austin", "Austin - Boston"], "slug": "mixed"},
    ]


def command(prompts: Path, root: Path, *more: str) -> list[str]:
    return ["batch", str(prompts), "-o", str(root), *SETTINGS, "--quiet", *more]


@pytest.fixture(scope="session")
def reference(tmp_path_factory: pytest.TempPathFactory) -> Batch:
    """Good and bad prompts, worked off in this process through submitit's debug executor."""
    pytest.importorskip("submitit")
    folder = tmp_path_factory.mktemp("reference")
    prompts = write_prompts(folder / "prompts.jsonl", [*good_rows(), *bad_rows()])
    root = folder / "out"
    code = run(command(prompts, root, "--engine", "slurm", "--cluster", "debug"))
    assert len(read_items(root)) == len(CITIES) + 4
    return Batch(root, code)


Start = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def start() -> Start:
    """Start the program in a process of its own, one thread each."""

    def started(arguments: Sequence[str], **environment: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-m", "circuit_tracer_cli", *arguments],
            env={**os.environ, "PYTHONPATH": str(SOURCE), "OMP_NUM_THREADS": "1", **environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    return started
