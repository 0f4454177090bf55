"""Convert a merged graph to a viewer file and back: its numbers are in optional keys of nodes and links.

A node's position is its slot, an edge's weight is its mean over all graphs. `metadata.merged` tells what was merged.
"""

from __future__ import annotations

import dataclasses
import math
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

import circuit_tracer_cli
from circuit_tracer_cli.errors import BadGraphFile, CircuitTracerError, InvalidValue, MissingFile
from circuit_tracer_cli.export.graph_json import read_graph_json
from circuit_tracer_cli.export.records import GENERATOR, TOKEN_TYPE, GraphFile, Link, Metadata, Node, QParams
from circuit_tracer_cli.export.slugs import check_slug
from circuit_tracer_cli.export.viewer import write_graph_file
from circuit_tracer_cli.graph.layout import logit_ids, warn_of_edges_left_out
from circuit_tracer_cli.many.align import VIRTUAL, Level, key_parts, packed_keys
from circuit_tracer_cli.many.align import align as aligned
from circuit_tracer_cli.many.facts import (
    ERROR,
    FEATURE,
    LOGIT,
    TOKEN,
    Array,
    Outline,
    graph_files,
    read_facts,
    read_outline,
)
from circuit_tracer_cli.many.merge import (
    Merged,
    OneGraph,
    Statistics,
    Sums,
    contribution,
    merge_contributions,
)
from circuit_tracer_cli.many.prompts import groups_of

MERGED = "merged"
"""Key in a file's metadata for what was merged, and in its nodes and links for their numbers."""


@dataclass(frozen=True, slots=True)
class Union:
    """A merged graph and the other data of its file."""

    merged: Merged
    scan: str
    n_layers: int
    targets: Mapping[int, tuple[str, float]]  # vocabulary index → text and mean weight over all graphs
    texts: Mapping[int, str]  # vocabulary index of a prompt token → its text


def merge_graphs(
    graphs: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
    output_path: str | os.PathLike[str] | None = None,
    *,
    align: Level | None = None,
    min_frequency: float = 0.0,
    by: str | None = None,
    seed: int = 0,
) -> Union:
    """Merge the graphs of many prompts into one, as `circuit-tracer merge` does.

    Args:
        graphs: A batch's folder, any folder with graphs, or the files themselves.
        output_path: The `.json` viewer file to write; None to write nothing.
        align: How positions are matched; None to choose (see `align.align`).
        min_frequency: Keep nodes and edges in at least this share of the graphs: 0 for the union, 1 for those in all.
        by: Column of the batch's prompts that gives two groups to compare.
        seed: Seed of the resampling.

    Raises:
        CircuitTracerError: Files can't be read or don't match, or the column doesn't give two groups.
        OutputError: The file can't be written.
    """
    target = None if output_path is None else Path(output_path)
    if target is not None:
        if target.suffix != ".json":
            raise InvalidValue(f"{target} doesn't end in .json", "for example union.json")
        check_slug(target.stem)
    folder, files = None, []
    if isinstance(graphs, (str, os.PathLike)):
        folder = Path(graphs)
        files = list(graph_files(folder))
    else:
        files = [Path(path) for path in graphs]
    if by is not None and folder is None:
        raise InvalidValue("groups need the columns of a batch", "pass the batch's folder")
    group_of = groups_of(folder, by) if folder is not None and by is not None else None
    paths = [path for path in files if target is None or path.resolve() != target.resolve()]
    union = merge_files(paths, level=align, least=min_frequency, group_of=group_of, seed=seed)
    if target is not None:
        write_graph_file(target, graph_file_of(union, target.stem))
    return union


def merge_files(
    paths: Sequence[Path],
    *,
    level: Level | None = None,
    least: float = 0.0,
    group_of: Mapping[str, str] | None = None,
    seed: int = 0,
) -> Union:
    """Merge graph files, including merged ones; each is read twice, one after the other.

    Args:
        paths: Raw or pruned graphs, or graph files, of one model and transcoder set.
        level: How positions are matched; None to choose (see `align`).
        least: Minimum frequency of nodes and edges to keep: 0 for the union, 1 for those in all graphs.
        group_of: Group of each graph, by name; two groups are compared.
        seed: Seed of the resampling.

    Raises:
        CircuitTracerError: Files can't be read or don't match.
    """
    if not paths:
        raise MissingFile("there are no graphs to merge", "name a folder with graphs")
    older = [_merged_before(path) for path in paths]
    if all(file is not None for file in older):
        return _merge_merged([file for file in older if file is not None], least, seed)
    if any(file is not None for file in older):
        raise CircuitTracerError(
            "merged and single graphs can't be merged together", "merge all single graphs at once"
        )
    outlines = [read_outline(path) for path in paths]
    alignment = aligned(outlines, level)
    if alignment.match != "feature":
        raise CircuitTracerError(
            "the graphs were made with different transcoder sets, so their features can't be matched",
            "merge graphs of one set",
        )

    def contributions() -> Iterator[OneGraph]:
        for path, slots in zip(paths, alignment.slots, strict=True):
            facts = read_facts(path)
            yield contribution(facts, slots, alignment, (group_of or {}).get(facts.name))

    merged = merge_contributions(contributions(), alignment.level, alignment.names, least, seed)
    targets: dict[int, tuple[str, float]] = {}
    for outline in outlines:
        for text, index, weight in outline.targets:
            targets[index] = (text, targets.get(index, (text, 0.0))[1] + weight / len(paths))
    return Union(merged, outlines[0].scan, outlines[0].n_layers, targets, token_texts(outlines))


def token_texts(graphs: Iterable[Outline]) -> dict[int, str]:
    """Text of every prompt token of some graphs by its vocabulary index."""
    return {
        index: text
        for graph in graphs
        for index, text in zip(graph.token_ids.tolist(), graph.tokens, strict=True)
    }


def graph_file_of(union: Union, slug: str) -> GraphFile:
    """The merged graph in the form of a graph file."""
    merged = union.merged
    names = node_names(merged.nodes.keys, union.n_layers)
    score = cumulative(merged.nodes.mean_share)
    parts = key_parts(merged.nodes.keys)
    nodes = []
    first_target = True
    for i, name in enumerate(names):
        kind = int(parts.kind[i])
        own = (kind, int(parts.layer[i]), int(parts.slot[i]), int(parts.feature[i]))
        node = file_node(name, own, union.n_layers, union.targets, union.texts, float(score[i]))
        if kind == FEATURE:
            node = dataclasses.replace(node, activation=float(merged.nodes.mean_value[i]))
        elif kind == LOGIT:
            node = dataclasses.replace(node, is_target_logit=first_target)
            first_target = False
        numbers = _numbers(merged.nodes, i)
        if merged.tests:
            numbers.update(_test_numbers(merged.tests["nodes"], i))
        nodes.append(dataclasses.replace(node, extra={MERGED: numbers}))
    place = {int(key): name for key, name in zip(merged.nodes.keys.tolist(), names, strict=True)}
    links = []
    for i, (source, target) in enumerate(merged.edges.keys.tolist()):
        numbers = _numbers(merged.edges, i)
        if merged.tests:
            numbers.update(_test_numbers(merged.tests["edges"], i))
        links.append(
            Link(place[source], place[target], float(merged.edges.mean_value[i]), extra={MERGED: numbers})
        )
    return GraphFile(_metadata(union, slug), QParams(), nodes, links)


def file_node(
    name: str,
    parts: tuple[int, int, int, int],
    n_layers: int,
    targets: Mapping[int, tuple[str, float]],
    texts: Mapping[int, str],
    score: float,
) -> Node:
    """A node of several graphs in the form of a graph file.

    Args:
        name: Its id.
        parts: Kind, layer, slot and feature, as `key_parts` gives them.
        n_layers: Number of the model's layers.
        targets: Text and weight of each target by its vocabulary index.
        texts: Text of each prompt token by its vocabulary index.
        score: Share of all influence that it and all nodes of more influence hold.
    """
    kind, layer, slot, feature = parts
    if kind == FEATURE:
        return Node.feature_node(layer, slot, feature, score)
    if kind == ERROR:
        return dataclasses.replace(Node.error_node(layer, slot, score), node_id=name)
    if kind == TOKEN:
        return dataclasses.replace(Node.token_node(slot, feature, score), clerp=texts.get(feature, ""))
    vocab_idx = feature if feature < VIRTUAL else feature - VIRTUAL
    text, weight = targets.get(vocab_idx, (f"⟨{vocab_idx}⟩", 0.0))
    return Node.logit_node(name, slot, vocab_idx, text, weight, is_first=False, n_layers=n_layers)


def node_names(keys: Array, n_layers: int) -> list[str]:
    """Ids of nodes by their keys as in any graph file, the slot in place of the position."""
    parts = key_parts(keys)
    targets = np.flatnonzero(parts.kind == LOGIT)
    of_target = logit_ids(parts.feature[targets].tolist(), n_layers, parts.slot[targets].tolist())
    names = dict(zip(targets.tolist(), of_target, strict=True))
    result = []
    for i in range(len(parts.kind)):
        kind, layer, slot, feature = (int(x[i]) for x in (parts.kind, parts.layer, parts.slot, parts.feature))
        prefix = "E" if kind == TOKEN else str(layer)
        result.append(names[i] if kind == LOGIT else f"{prefix}_{feature}_{slot}")
    return result


def _numbers(statistics: Statistics, i: int) -> dict[str, Any]:
    """The statistics of one key by name, without unknown ones."""
    values = {name: float(getattr(statistics, name)[i]) for name in _FLOATS if len(getattr(statistics, name))}
    known = {name: value for name, value in values.items() if math.isfinite(value)}
    return {"n_seen": int(statistics.n_seen[i]), "n_positive": int(statistics.n_positive[i]), **known}


_FLOATS = (
    "frequency", "mean_share", "mean_share_seen", "sd", "mean_value", "sign_consistency", "stability", "low", "high",
)  # fmt: skip


def _test_numbers(test: Any, i: int) -> dict[str, Any]:
    values = {name: float(getattr(test, name)[i]) for name in ("difference", "delta", "p", "q")}
    return {name: value for name, value in values.items() if math.isfinite(value)}


def cumulative(shares: Array) -> Array:
    """The cumulative share of influence of the nodes, most influential first."""
    order = np.argsort(-shares, kind="stable")
    scores = np.empty(len(shares))
    scores[order] = shares[order].cumsum() / max(float(shares.sum()), 1e-30)
    return scores


def _metadata(union: Union, slug: str) -> Metadata:
    merged = union.merged
    record: dict[str, Any] = {
        "n": len(merged.members),
        "level": merged.level,
        "slots": list(merged.names),
        "members": list(merged.members),
        "n_layers": union.n_layers,
    }
    if merged.groups:
        record["groups"] = merged.groups
    if merged.tests:
        record["tests"] = {
            "groups": list(merged.tests["nodes"].groups),
            "n_tests": {name: test.n_tests for name, test in merged.tests.items()},
        }
    return Metadata(
        slug=slug,
        scan=union.scan,
        prompt_tokens=list(merged.names),
        prompt=f"{len(merged.members)} prompts: " + "".join(merged.names),
        info={"generator": {"name": GENERATOR, "version": circuit_tracer_cli.__version__}},
        extra={MERGED: record},
    )


def _merged_before(path: Path) -> GraphFile | None:
    """The file, if it is a merged graph."""
    if path.suffix != ".json":
        return None
    try:
        file = read_graph_json(path.read_bytes(), str(path))
    except OSError as error:
        raise MissingFile(f"can't read {path}: {error.strerror}", "check the path") from error
    if MERGED not in file.metadata.extra:
        return None
    warn_of_edges_left_out(file.metadata.extra, str(path))
    return file


def _merge_merged(files: Sequence[GraphFile], least: float, seed: int) -> Union:
    """Merge merged graphs by their counts; intervals and tests, which need the single graphs, are left out."""
    records = [file.metadata.extra[MERGED] for file in files]
    first = records[0]
    for file, record in zip(files, records, strict=True):
        if (record["level"], record["slots"]) != (
            first["level"],
            first["slots"],
        ) or file.metadata.scan != files[0].metadata.scan:
            raise CircuitTracerError(
                f"{file.metadata.slug} and {files[0].metadata.slug} were merged with different slots or sets",
                "merge the single graphs at once",
            )
    targets: dict[int, tuple[str, float]] = {}
    texts: dict[int, str] = {}
    total = sum(int(record["n"]) for record in records)

    def contributions() -> Iterator[OneGraph]:
        for file, record in zip(files, records, strict=True):
            keys = _keys_of(file, int(record["n_layers"]))
            for node in file.nodes:
                if node.feature_type == TOKEN_TYPE:
                    texts[int(node.node_id.split("_")[1])] = node.clerp
                if node.feature_type == "logit":
                    text = node.clerp.removeprefix('Output "').rpartition('" (p=')[0]
                    index, share = int(node.feature or 0), int(record["n"]) / total
                    targets[index] = (text, targets.get(index, ("", 0.0))[1] + node.token_prob * share)
            nodes = _sums(
                [keys[node.node_id] for node in file.nodes], [node.extra for node in file.nodes], record["n"]
            )
            ends = [(keys[link.source], keys[link.target]) for link in file.links]
            edges = _sums(ends, [link.extra for link in file.links], record["n"])
            yield OneGraph(nodes, edges, tuple(record["members"]))

    try:
        merged = merge_contributions(contributions(), first["level"], tuple(first["slots"]), least, seed)
    except (KeyError, TypeError) as error:
        raise BadGraphFile(f"a merged graph lacks {error}", "merge its graphs again") from error
    return Union(merged, files[0].metadata.scan, int(first["n_layers"]), targets, texts)


def _keys_of(file: GraphFile, n_layers: int) -> dict[str, int]:
    """Node id → key, as `align.node_keys` makes them."""
    kinds = {"embedding": TOKEN, "logit": LOGIT, "mlp reconstruction error": ERROR}
    names = [node.node_id for node in file.nodes]
    kind = np.array([kinds.get(node.feature_type, FEATURE) for node in file.nodes])
    layer = np.array([int(node.layer) if node.layer.isdigit() else -1 for node in file.nodes])
    layer = np.where(kind == LOGIT, 2**10 - 1, layer + 1)
    feature = np.array([int(name.split("_")[1]) for name in names])
    slot = np.array([node.ctx_idx for node in file.nodes])
    return dict(zip(names, packed_keys(kind, layer, slot, feature).tolist(), strict=True))


def _sums(keys: Sequence[Any], extras: Sequence[Mapping[str, Any]], n: int) -> Sums:
    """The sums that a merged file's numbers came from."""
    rows = [extra[MERGED] for extra in extras]
    seen = np.array([row["n_seen"] for row in rows], dtype=np.float64)
    mean = np.array([row["mean_share"] for row in rows], dtype=np.float64)
    sd = np.array([row["sd"] for row in rows], dtype=np.float64)
    order = np.lexsort(np.atleast_2d(np.array(keys, dtype=np.uint64).T)[::-1])
    sums = Sums(
        keys=np.array(keys, dtype=np.uint64),
        n=seen,
        share=mean * n,
        share2=sd**2 * max(1, n - 1) + n * mean**2,
        value=np.array([row["mean_value"] for row in rows], dtype=np.float64) * n,
        plus=np.array([row["n_positive"] for row in rows], dtype=np.float64),
        stable=np.array([row.get("stability", math.nan) for row in rows], dtype=np.float64) * seen,
    )
    return sums.where(order)
