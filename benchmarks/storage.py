"""`prune`, `export` and `show` on a synthetic graph file of any size: seconds and peak memory of each command.

python -m benchmarks.storage --nodes 100000 --edges 100000000
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.tables import markdown
from circuit_tracer_cli.graph.edges import Edges
from circuit_tracer_cli.graph.graph import Graph
from circuit_tracer_cli.graph.layout import NodeLayout
from circuit_tracer_cli.graph.store import save_graph
from circuit_tracer_cli.types import LogitTarget, UnifiedConfig

N_LAYERS, N_POS, N_LOGITS = 26, 256, 10
NODE_THRESHOLD, EDGE_THRESHOLD = 0.99, 0.999
"""Higher than anybody's, so that the pruned graph is large too."""


def _spread(generator: np.random.Generator, count: int, among: int) -> np.ndarray[Any, Any]:
    """`count` different ascending numbers below `among`, evenly spread."""
    bounds = np.arange(count + 1) * among // count
    return bounds[:-1] + (generator.random(count) * np.diff(bounds)).astype(np.int64)


def synthetic_graph(n_nodes: int, n_edges: int, seed: int = 0) -> Graph:
    """A graph whose features read earlier layers' features and errors and every token, with heavy-tailed weights."""
    generator = np.random.default_rng(seed)
    n_features = n_nodes - N_LAYERS * N_POS - N_POS - N_LOGITS
    layout = NodeLayout(n_features, N_LAYERS, N_POS, N_LOGITS)
    layer_of = np.sort(generator.integers(0, N_LAYERS, n_features))
    first = np.searchsorted(layer_of, np.arange(N_LAYERS + 1))
    targets = [*range(n_features), *range(layout.logit_offset, n_nodes)]
    layers = np.concatenate([layer_of, np.full(N_LOGITS, N_LAYERS)])
    room = first[layers] + layers * N_POS + N_POS
    counts = np.minimum(room, np.maximum(1, room * (n_edges / room.sum()))).astype(np.int64)
    indptr = np.zeros(n_nodes + 1, dtype=np.int64)
    indptr[np.asarray(targets) + 1] = counts
    indptr = indptr.cumsum()
    indices = torch.empty(int(indptr[-1]), dtype=torch.int32)
    values = torch.empty(len(indices))
    strength = np.exp(generator.standard_normal(n_nodes))
    for target, layer, count in zip(targets, layers, counts, strict=True):
        chosen = _spread(generator, count, first[layer] + layer * N_POS + N_POS)
        below = first[layer]
        is_token = chosen >= below + layer * N_POS
        columns = np.where(chosen < below, chosen, chosen - below + layout.error_offset)
        columns = np.where(is_token, chosen - below - layer * N_POS + layout.token_offset, columns)
        place = slice(int(indptr[target]), int(indptr[target + 1]))
        indices[place] = torch.from_numpy(columns.astype(np.int32))
        weights = generator.standard_normal(count) * strength[columns]
        values[place] = torch.from_numpy(weights.astype(np.float32))
    values[values == 0] = 1e-6
    features = np.stack(
        [layer_of, generator.integers(1, N_POS, n_features), generator.integers(0, 16_384, n_features)],
        axis=1,
    )
    return Graph(
        input_string="synthetic",
        input_tokens=torch.arange(N_POS),
        active_features=torch.from_numpy(features[np.lexsort(features.T[::-1])]),
        adjacency_matrix=Edges(torch.from_numpy(indptr), indices, values),
        cfg=UnifiedConfig(
            n_layers=N_LAYERS,
            d_model=2304,
            d_head=256,
            n_heads=8,
            d_mlp=9216,
            d_vocab=65_536,
            tokenizer_name="synthetic",
            model_name="synthetic",
            original_architecture="synthetic",
        ),
        selected_features=torch.arange(n_features),
        activation_values=torch.ones(n_features),
        logit_targets=[LogitTarget(f"token {i}", i) for i in range(N_LOGITS)],
        scan="synthetic",
        metadata={"prompt_tokens": [str(i) for i in range(N_POS)]},
        logit_probabilities=torch.full((N_LOGITS,), 0.09),
    )


def _memory_of(process: int) -> tuple[int, int]:
    """Peak resident memory and present anonymous memory of a process in KiB; zeros once it's gone."""
    try:
        lines = Path(f"/proc/{process}/status").read_text(encoding="ascii").splitlines()
    except (OSError, ValueError):
        return 0, 0
    found = {line.split(":")[0]: int(line.split()[1]) for line in lines if line.endswith(" kB")}
    return found.get("VmHWM", 0), found.get("RssAnon", 0)


def run_measured(command: list[str]) -> dict[str, Any]:
    """Seconds and peak memory of a command, looked at every hundredth of a second. Raises RuntimeError if it fails."""
    start = time.perf_counter()
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    peak = anonymous = 0
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as child:
        while child.poll() is None:
            resident, own = _memory_of(child.pid)
            peak, anonymous = max(peak, resident), max(anonymous, own)
            time.sleep(0.01)
    if child.returncode:
        raise RuntimeError(f"{' '.join(command)} failed")
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return {
        "seconds": round(time.perf_counter() - start, 2),
        "cpu s": round(usage.ru_utime + usage.ru_stime - before.ru_utime - before.ru_stime, 2),
        "peak resident MiB": round(peak / 1024),
        "own MiB": round(anonymous / 1024),
    }


def measure(folder: Path, n_nodes: int, n_edges: int, only: list[str] | None = None) -> list[dict[str, Any]]:
    """The commands in the order in which a user runs them; `only` some of them, by how their names begin."""
    raw, pruned = folder / "raw.safetensors", folder / "pruned.safetensors"
    made = os.fork()
    if made == 0:  # in a process of its own, so that its memory isn't inherited as anybody's peak
        save_graph(synthetic_graph(n_nodes, n_edges), raw)
        os._exit(0)
    if os.waitpid(made, 0)[1]:
        raise RuntimeError("the synthetic graph could not be made")
    tool = [sys.executable, "-m", "circuit_tracer_cli"]
    thresholds = ["--node-threshold", str(NODE_THRESHOLD), "--edge-threshold", str(EDGE_THRESHOLD)]
    commands = {
        "--help": [*tool, "--help"],
        "prune": [*tool, "prune", str(raw), "-o", str(pruned), *thresholds],
        "show (raw)": [*tool, "show", str(raw), "--json"],
        "show (pruned)": [*tool, "show", str(pruned), "--json"],
    }
    for form in ("json", "csv", "graphml"):
        target = ["--format", form, "--slug", "big", "--graph-file-dir", str(folder / form)]
        commands[f"export {form} (pruned)"] = [*tool, "export", str(pruned), *target]
    results = []
    for name, command in commands.items():
        if only and not any(name.startswith(wanted) for wanted in only):
            continue
        results.append({"command": name, **run_measured(command)})
        print(markdown(results[-1:]).splitlines()[-1], flush=True)
    sizes = {path.stem: path.stat().st_size for path in (raw, pruned) if path.exists()}
    print(f"\nfiles, MiB: { {name: round(size / 2**20) for name, size in sizes.items()} }\n")
    return results


def main() -> None:
    """Measure and print; `--json` also writes the numbers."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--nodes", type=int, default=100_000)
    parser.add_argument("--edges", type=int, default=100_000_000)
    parser.add_argument(
        "--folder", type=Path, help="where the files go meanwhile (default: the system's temporary folder)"
    )
    parser.add_argument("--only", nargs="+", help="commands to measure, such as prune (default: all)")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="circuit-tracer-bench-", dir=arguments.folder))
    try:
        results = measure(folder, arguments.nodes, arguments.edges, arguments.only)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    print(markdown(results))
    if arguments.json:
        arguments.json.write_text(json.dumps(results, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
