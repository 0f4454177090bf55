"""Tables and a merge of many graphs of many edges: bytes, seconds, and whether memory grows with the number of graphs.

python -m benchmarks.many_graphs [--graphs N] [--edges E]

The graphs are synthetic: half of the nodes and about half of the edges are in other graphs too, each edge in a share of its
own, so that a merge has something to keep; weights are random, which doesn't compress. Each step runs in a process of its own,
whose peak memory is given.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from circuit_tracer_cli.many.align import node_keys
from circuit_tracer_cli.many.facts import ERROR, FEATURE, LOGIT, TOKEN, Facts
from circuit_tracer_cli.many.merge import OneGraph, Sums, merge_contributions
from circuit_tracer_cli.many.tables import connect, query, write_graph_tables

N_POS, N_LAYERS, POOL = 12, 26, 16_384
QUERIES = {
    "features in most graphs": "select layer, feature, count(distinct graph) as n from nodes where kind = 'feature' "
    "group by all order by n desc limit 20",
    "strongest edges on average": "select source_layer, source_feature, target_layer, target_feature, sum(weight) as w "
    "from edges group by all order by abs(w) desc limit 20",
    "share of errors by layer": "select layer, avg(influence) from nodes where kind = 'error' group by layer",
}


def synthetic(seed: int, n_edges: int) -> Facts:
    """One graph: half of its nodes are in all graphs; half of its edges are among those, each in a share of the graphs."""
    rng, common = np.random.default_rng(seed), np.random.default_rng(0)
    n, n_core = 800, 400
    core, own = (
        np.stack([draw.integers(0, N_LAYERS, n), draw.integers(0, POOL, n), draw.integers(0, N_POS, n)])
        for draw in (common, rng)
    )
    layer, feature, position = np.where(np.arange(n) < n_core, core, own)
    kind = np.full(n, FEATURE, dtype=np.int8)
    kind[600:700], feature[600:700] = ERROR, -1
    kind[-N_POS - 1 : -1], kind[-1] = TOKEN, LOGIT
    layer[-N_POS - 1 : -1], layer[-1] = -1, N_LAYERS
    position[-N_POS - 1 : -1], position[-1] = np.arange(N_POS), N_POS - 1
    known = common.permutation(n_core * n_core)[:n_edges]
    shared = known[rng.random(len(known)) < common.random(len(known))]
    pairs = np.concatenate(
        [shared // n_core * n + shared % n_core, rng.integers(0, n * n, n_edges - len(shared))]
    )
    order = np.lexsort((layer, kind))
    rank = np.argsort(order)
    kind, layer, feature, position = kind[order], layer[order], feature[order], position[order]
    pairs = np.unique(rank[pairs // n] * n + rank[pairs % n])
    influence = rng.random(n)
    weight = rng.normal(size=len(pairs))
    return Facts(
        name=f"graph{seed:05d}",
        prompt="a prompt",
        tokens=tuple(f" t{i}" for i in range(N_POS)),
        token_ids=np.arange(N_POS),
        scan="synthetic",
        n_layers=N_LAYERS,
        targets=((" yes", int(feature[-1]), 0.9),),
        metadata={},
        ids=[
            f"{a}_{b}_{c}"
            for a, b, c in zip(layer.tolist(), feature.tolist(), position.tolist(), strict=True)
        ],
        kind=kind,
        layer=layer,
        feature=feature,
        position=position,
        activation=rng.random(n),
        influence=influence,
        share=influence / influence.sum(),
        kept=np.ones(n, dtype=np.bool_),
        cumulative=rng.random(n),
        source=pairs % n,
        target=pairs // n,
        weight=weight,
        edge_share=np.abs(weight) / 100,
        flow=np.abs(weight) / 1000,
        replacement=0.5,
        completeness=0.8,
        whole=False,
        node_stability=rng.random(n),
        edge_stability=rng.random(len(pairs)),
    )


def contributions(n_graphs: int, n_edges: int) -> Iterator[OneGraph]:
    """What each graph adds to a merge, made when it is asked for."""
    for seed in range(n_graphs):
        facts = synthetic(seed, n_edges)
        keys = node_keys(facts, np.arange(N_POS))
        ends = np.stack([keys[facts.source], keys[facts.target]], axis=1)
        yield OneGraph(
            Sums.of_one(keys, facts.share, facts.activation, facts.node_stability),
            Sums.of_one(ends, facts.edge_share, facts.weight, facts.edge_stability),
            (facts.name,),
        )


def step(what: str, folder: Path, n_graphs: int, n_edges: int) -> dict[str, float]:
    """One step in this process, with its seconds and peak memory in MB."""
    import resource

    begin = time.perf_counter()
    result: dict[str, float] = {}
    if what == "write":
        connection = connect()
        for seed in range(n_graphs):
            write_graph_tables(synthetic(seed, n_edges), folder, None, connection)
        result["MB"] = sum(path.stat().st_size for path in folder.rglob("*.parquet")) / 1e6
    elif what == "merge":
        merged = merge_contributions(contributions(n_graphs, n_edges), "exact", ("slot",) * N_POS, 0.2)
        result["edges kept"] = len(merged.edges.keys)
    else:
        result["rows"] = len(query(folder, QUERIES[what])[1])
    result["seconds"] = time.perf_counter() - begin
    result["peak MB"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3
    return {name: round(value, 2) for name, value in result.items()}


def in_own_process(*arguments: object) -> dict[str, float]:
    """Run one step in a new process."""
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.many_graphs", *(str(one) for one in arguments)],
        check=True,
        capture_output=True,
        text=True,
    )
    found: dict[str, float] = json.loads(done.stdout)
    return found


def main() -> None:
    """Print the numbers as JSON, for a quarter of the graphs and for all."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--graphs", type=int, default=1000)
    parser.add_argument("--edges", type=int, default=40_000)
    parser.add_argument("--step", help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.step:
        print(json.dumps(step(arguments.step, arguments.folder, arguments.graphs, arguments.edges)))
        return
    results = {}
    for n_graphs in (arguments.graphs // 4, arguments.graphs):
        with tempfile.TemporaryDirectory() as folder:
            results[f"{n_graphs} graphs of {arguments.edges} edges"] = {
                what: in_own_process(
                    "--step", what, "--folder", folder, "--graphs", n_graphs, "--edges", arguments.edges
                )
                for what in ("write", *QUERIES, "merge")
            }
    print(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()
