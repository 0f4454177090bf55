"""Two compared graphs as one graph file: the nodes and edges of either, each saying which graph has it and what it has of it.

A node's position is its slot. An edge's weight is that of the graph that has it, or the mean of both. `metadata.diff` holds what
was compared, the scores, and the largest changes of what enters the target, with the ids of this file.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

import circuit_tracer_cli
from circuit_tracer_cli.errors import CircuitTracerError, MissingFile
from circuit_tracer_cli.export.graph_list import metadata_in
from circuit_tracer_cli.export.records import GENERATOR, GraphFile, Link, Metadata, Node, QParams
from circuit_tracer_cli.export.viewer import write_graph_file
from circuit_tracer_cli.graph.proposals import proposals_of
from circuit_tracer_cli.many.align import Level, key_parts
from circuit_tracer_cli.many.diff import CLASSES, Column, GraphDiff, diff_facts
from circuit_tracer_cli.many.facts import FEATURE, LOGIT, Array, Facts, read_facts
from circuit_tracer_cli.many.merged_file import cumulative, file_node, node_names, token_texts
from circuit_tracer_cli.many.prompts import object_of

DIFF = "diff"
"""Key of a file's metadata that says what was compared, and of its nodes and links for which graph has them."""
MOST_CHANGES = 100
"""Changes of the target that are kept one by one; the others are summed."""


def write_diff(found: GraphDiff, path: Path, asked: dict[str, Any] | None = None) -> None:
    """Write two compared graphs as one file for the viewer. Raises OutputError, InvalidValue for a bad name."""
    write_graph_file(path, diff_file_of(found, path.stem, asked))


def diff_file_of(found: GraphDiff, slug: str, asked: dict[str, Any] | None = None) -> GraphFile:
    """Return two compared graphs in the form of a graph file.

    Args:
        found: The comparison.
        slug: Name of the file.
        asked: Kept with it, so that the same question can be recognised.
    """
    n_layers = found.a.n_layers
    names = node_names(found.keys, n_layers)
    nodes = _nodes(found, names)
    links = [
        Link(names[source], names[target], _weight(found.edges, i), extra={DIFF: _edge_numbers(found, i)})
        for i, (source, target) in enumerate(found.edge_ends.tolist())
    ]
    return GraphFile(_metadata(found, slug, names, asked or {}), QParams(), nodes, links)


def _nodes(found: GraphDiff, names: list[str]) -> list[Node]:
    parts = key_parts(found.keys)
    score = cumulative(_mean_influence(found))
    targets, words, texts = _targets(found), _words(found), token_texts((found.b, found.a))
    nodes: list[Node] = []
    for i, name in enumerate(names):
        kind, layer = int(parts.kind[i]), int(parts.layer[i])
        own = (kind, layer, int(parts.slot[i]), int(parts.feature[i]))
        node = file_node(name, own, found.a.n_layers, targets, texts, float(score[i]))
        if kind == FEATURE:
            node = dataclasses.replace(node, activation=_activation(found.nodes, i))
            node = _labelled(node, words.get(found.ids[i], {}))
            if found.alignment.match == "place":
                node = dataclasses.replace(node, clerp=f"all features of layer {layer}", extra={})
        elif kind == LOGIT:
            first = not any(one.is_target_logit for one in nodes)
            node = dataclasses.replace(node, is_target_logit=first)
        nodes.append(dataclasses.replace(node, extra={**node.extra, DIFF: _node_numbers(found, i)}))
    return nodes


def _words(found: GraphDiff) -> dict[str, Mapping[str, Any]]:
    """Labels of features by the ids that the comparison gives them, those of `a` first."""
    words: dict[str, Mapping[str, Any]] = {}
    for facts in (found.b, found.a):
        words.update(facts.words)
        if facts.graph is not None:
            proposals = proposals_of(facts.graph.metadata, facts.tokens)
            words.update({name: {"proposed_label": one} for name, one in proposals.items()})
    return words


def _labelled(node: Node, words: Mapping[str, Any]) -> Node:
    extra = {name: value for name, value in words.items() if name != "clerp"}
    return dataclasses.replace(node, clerp=words.get("clerp", ""), extra=extra)


def _mean_influence(found: GraphDiff) -> Array:
    """float64 `(N)`: the mean of what part of all influence a node has in either graph."""
    a, b = (column.flow / max(float(column.flow.sum()), 1e-30) for column in found.nodes)
    mean: Array = (a + b) / 2
    return mean


def _targets(found: GraphDiff) -> dict[int, tuple[str, float]]:
    """Text and mean weight of the targets of either graph by their vocabulary index."""
    targets: dict[int, tuple[str, float]] = {}
    for graph in (found.a, found.b):
        for text, index, weight in graph.targets:
            targets[index] = (text, targets.get(index, (text, 0.0))[1] + weight / 2)
    return targets


def _side(columns: tuple[Column, Column], i: int) -> str:
    """Which graph keeps a node or edge."""
    a, b = (bool(column.kept[i]) for column in columns)
    return "both" if a and b else "a" if a else "b"


def _weight(columns: tuple[Column, Column], i: int) -> float:
    held = [float(column.value[i]) for column in columns if column.kept[i]]
    return sum(held) / len(held)


def _activation(columns: tuple[Column, Column], i: int) -> float | None:
    held = [float(column.value[i]) for column in columns if column.kept[i]]
    mean = sum(held) / len(held)
    return mean if math.isfinite(mean) else None


def _node_numbers(found: GraphDiff, i: int) -> dict[str, Any]:
    a, b = found.nodes
    return {
        "side": _side(found.nodes, i),
        "class": CLASSES[int(found.node_class[i])],
        "share_a": float(a.share[i]),
        "share_b": float(b.share[i]),
        **({"noise": found.within_noise(i)} if found.noise is not None else {}),
    }


def _edge_numbers(found: GraphDiff, i: int) -> dict[str, Any]:
    a, b = found.edges
    numbers: dict[str, Any] = {
        "side": _side(found.edges, i),
        "class": CLASSES[int(found.edge_class[i])],
    }
    return {**numbers, "a": float(a.value[i]), "b": float(b.value[i])}


def _metadata(found: GraphDiff, slug: str, names: list[str], asked: dict[str, Any]) -> Metadata:
    a, b, alignment = found.a, found.b, found.alignment
    name_of = dict(zip(found.keys.tolist(), names, strict=True))
    kept, rest = found.changes[:MOST_CHANGES], found.changes[MOST_CHANGES:]
    changes = [
        {**change.to_dict(), **({"id": name_of[change.key]} if change.key in name_of else {})}
        for change in kept
    ]
    record: dict[str, Any] = {
        "a": {"name": a.name, "prompt": a.prompt},
        "b": {"name": b.name, "prompt": b.prompt},
        "asked": asked,
        "level": alignment.level,
        "match": alignment.match,
        "slots": _slots(found),
        "scores": {name: value for name, value in found.scores.items() if math.isfinite(value)},
        "counts": {name: int((found.node_class == i).sum()) for i, name in enumerate(CLASSES)},
        "target": {"a": found.target[0], "b": found.target[1]},
        "noise": found.noise,
        "change_noise": found.change_noise,
        "changes": changes,
        "others": {"n": len(rest), "change": sum(change.b - change.a for change in rest)},
    }
    return Metadata(
        slug=slug,
        scan=a.scan if a.scan == b.scan else f"{a.scan} | {b.scan}",
        prompt_tokens=list(alignment.names),
        prompt=a.prompt if a.prompt == b.prompt else f"{a.prompt} | {b.prompt}",
        info={"generator": {"name": GENERATOR, "version": circuit_tracer_cli.__version__}},
        extra={DIFF: record},
    )


def _slots(found: GraphDiff) -> list[list[str | None]]:
    """The tokens of either graph at each slot; a slot may hold several."""
    table: list[list[str | None]] = [[None, None] for _ in range(found.alignment.n_slots)]
    if found.alignment.level == "bag":
        return table
    for side, (graph, slots) in enumerate(zip((found.a, found.b), found.alignment.slots, strict=True)):
        for token, slot in zip(graph.tokens, np.asarray(slots).tolist(), strict=True):
            table[slot][side] = (table[slot][side] or "") + token
    return table


def diff_of_folder(
    folder: Path, a: str, b: str, *, align: Level | None = None, target: str | None = None
) -> GraphDiff:
    """Compare two graphs of a folder of the viewer by their slugs, by their raw graphs where a batch has kept those.

    Raises as `diff_facts`, and MissingFile, BadGraphFile.
    """
    return diff_facts(_facts_of(folder, a), _facts_of(folder, b), align, target)


def _facts_of(folder: Path, slug: str) -> Facts:
    path = folder / f"{slug}.json"
    if not path.is_file():
        raise MissingFile(f"there is no graph {slug!r}", "GET /api/graphs lists the graphs of this server")
    held = object_of(folder, slug)
    shown = (metadata_in(path) or {}).get("pruning_settings")
    if held is not None and isinstance(shown, dict):
        thresholds = (shown.get("node_threshold"), shown.get("edge_threshold"))
        try:
            return dataclasses.replace(read_facts(held, *thresholds), name=slug)
        except CircuitTracerError:  # damaged, or being replaced
            pass
    return read_facts(path)
