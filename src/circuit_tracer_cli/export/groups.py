"""Automatic groups in graph files of the viewer: read from a file's nodes and links, written as its supernodes and pins."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from circuit_tracer_cli.export.annotations import fitting, older_view
from circuit_tracer_cli.export.records import GraphFile, Metadata, Node, QParams, target_weight
from circuit_tracer_cli.graph.grouping import Circuit, check_size
from circuit_tracer_cli.graph.groups import Grouping, group_circuit
from circuit_tracer_cli.graph.layout import NodeKind

GROUPING = "grouping"
"""Key of the record in the metadata of a graph and of its files."""


def circuit_of_file(file: GraphFile) -> Circuit:
    """Return the nodes and edges of a graph file. Raises UnsuitableValue for too many nodes."""
    nodes = sorted(file.nodes, key=lambda node: node.node_id)
    check_size(len(nodes))
    place = {node.node_id: at for at, node in enumerate(nodes)}
    A = np.zeros((len(nodes), len(nodes)))
    for link in file.links:
        if link.source in place and link.target in place:
            A[place[link.target], place[link.source]] = link.weight
    kinds = [_kind(node) for node in nodes]
    return Circuit(
        [node.node_id for node in nodes],
        kinds,
        np.array([int(node.layer) if node.layer.isdigit() else -1 for node in nodes], dtype=np.int64),
        np.array([node.ctx_idx for node in nodes], dtype=np.int64),
        np.array(
            [node.feature or 0 if kind == "feature" else -1 for node, kind in zip(nodes, kinds, strict=True)]
        ),
        A,
        np.array([target_weight(node.feature_type, node.is_target_logit, node.token_prob) for node in nodes]),
    )


def _kind(node: Node) -> NodeKind:
    if "error" in node.feature_type:
        return "error"
    kinds: dict[str, NodeKind] = {"embedding": "token", "logit": "logit"}
    return kinds.get(node.feature_type, "feature")


def group_file(
    file: GraphFile,
    level: float,
    *,
    across_positions: bool,
    keep: bool,
    labels: Mapping[tuple[int, int], str] | None = None,
) -> tuple[GraphFile, Grouping]:
    """Return a graph file with its features grouped, and the groups.

    Args:
        file: A graph file. Groups made by hand are subject to `keep`; those of an earlier automatic grouping are remade.
        level, across_positions: As for `group_nodes`.
        keep: True to keep groups made by hand, which then only grow.
        labels: Labels of features by (layer, feature), for those without a label in the file.
    """
    ids = {node.node_id for node in file.nodes}
    grouping = group_circuit(
        circuit_of_file(file),
        level,
        across_positions=across_positions,
        keep=_within(hand_made(file.metadata, file.qParams), ids) if keep else [],
        labels=_labels(file, labels or {}),
        tokens=file.metadata.prompt_tokens,
    )
    extra = {**file.metadata.extra, GROUPING: grouping.to_dict()}
    metadata = dataclasses.replace(file.metadata, extra=extra)
    supernodes = [[group.name, *group.nodes] for group in grouping.groups]
    q_params = _with_groups(file.qParams, supernodes)
    return dataclasses.replace(file, metadata=metadata, qParams=q_params), grouping


def hand_made_at(path: Path, prompt: str, scan: str, node_ids: set[str]) -> list[list[str]]:
    """Return the groups made by hand in a graph file of this prompt and these transcoders, without removed nodes."""
    found = older_view(path, prompt, scan)
    return [] if found is None else _within(hand_made(*found), node_ids)


def hand_made(metadata: Metadata, annotations: QParams) -> list[list[str]]:
    """Return a file's groups without unchanged automatic ones."""
    before = metadata.extra.get(GROUPING)
    listed = before.get("groups") if isinstance(before, dict) else None
    automatic = {
        (group.get("name"), *sorted(group.get("nodes") or ()))
        for group in listed or ()
        if isinstance(group, dict) and not group.get("kept")
    }
    return [group for group in annotations.supernodes if (group[0], *sorted(group[1:])) not in automatic]


def _within(groups: Sequence[Sequence[str]], node_ids: set[str]) -> list[list[str]]:
    """Groups without missing nodes."""
    found = [[label, *(node for node in nodes if node in node_ids)] for label, *nodes in groups]
    return [group for group in found if len(group) > 1]


def _with_groups(before: QParams, supernodes: list[list[str]]) -> QParams:
    """Annotations with only these groups, their nodes pinned; positions of removed boxes are dropped."""
    old = {node for _, *nodes in before.supernodes for node in nodes}
    pinned = [node for node in before.pinnedIds if node not in old]
    pinned += [node for _, *nodes in supernodes for node in nodes if node not in pinned]
    extra = {key: value for key, value in before.extra.items() if key not in ("sg_size", "sg_expanded")}
    if isinstance(extra.get("subgraphs"), list):
        shown = {"name": extra.get("subgraph"), "pinnedIds": pinned, "supernodes": supernodes, "sg_pos": ""}
        extra["subgraphs"] = [
            shown if isinstance(one, dict) and one.get("name") == shown["name"] else one
            for one in extra["subgraphs"]
        ]
    return dataclasses.replace(before, pinnedIds=pinned, supernodes=supernodes, sg_pos="", extra=extra)


def annotations_of(metadata: Mapping[str, Any]) -> QParams | None:
    """Return the annotations that a grouped raw graph starts with in the viewer; None for a graph without groups."""
    stored = metadata.get(GROUPING)
    groups = stored.get("groups") if isinstance(stored, Mapping) else None
    if not isinstance(groups, list) or not all(isinstance(group, dict) for group in groups):
        return None
    supernodes = [[str(group.get("name")), *map(str, group.get("nodes") or ())] for group in groups]
    return QParams(pinnedIds=[node for _, *nodes in supernodes for node in nodes], supernodes=supernodes)


@dataclasses.dataclass(frozen=True, slots=True)
class Regrouped:
    """The annotations of a grouped graph's file that replaces an older one.

    Attributes:
        annotations: The older ones, with the graph's groups unless people have made other groups there.
        grouping: The record of the automatic groups among them, which distinguishes them from those made by hand.
        refused: True if the graph's groups were left out because they would break up groups made by hand.
    """

    annotations: QParams
    grouping: Any
    refused: bool = False


def regrouped(
    graph_metadata: Mapping[str, Any], older: tuple[Metadata, QParams], node_ids: set[str], *, insist: bool
) -> Regrouped:
    """Put a graph's automatic groups into the annotations of the file that its own replaces.

    Args:
        graph_metadata: The graph's metadata.
        older: Metadata and annotations of the file.
        node_ids: Nodes of the new file.
        insist: Replace groups that people made, and restore groups of the same grouping that they took apart.
    """
    metadata, annotations = older
    kept, start = fitting(annotations, node_ids), annotations_of(graph_metadata)
    before = metadata.extra.get(GROUPING)
    if start is None:
        return Regrouped(kept, before)
    grouping = graph_metadata[GROUPING]
    if before == grouping and not insist:
        return Regrouped(kept, grouping)
    coming = _within(start.supernodes, node_ids)
    made = _within(hand_made(metadata, annotations), node_ids)
    whole = all(any(set(group[1:]) <= set(other[1:]) for other in coming) for group in made)
    if whole or insist:
        return Regrouped(_with_groups(kept, coming), grouping)
    return Regrouped(kept, before, refused=True)


def grouping_extra(metadata: Mapping[str, Any]) -> dict[str, Any]:
    """Return the record of a graph file's groups, for its metadata."""
    return {GROUPING: metadata[GROUPING]} if isinstance(metadata.get(GROUPING), dict) else {}


def _labels(file: GraphFile, known: Mapping[tuple[int, int], str]) -> dict[str, str]:
    """Labels by node id: from the file, else from feature examples, else proposed by the trace; for outputs, their tokens."""
    given = {
        str(code): str(text)
        for code, text in (pair for pair in file.qParams.extra.get("clerps") or () if len(pair) == 2)
    }
    found = {}
    for node in file.nodes:
        layer, _, rest = node.node_id.partition("_")
        number = rest.partition("_")[0]
        key = (int(layer), int(number)) if layer.isdigit() and number.isdigit() else (-1, -1)
        proposed = node.extra.get("proposed_label")
        text = proposed.get("text") if isinstance(proposed, dict) else proposed
        label = given.get(str(node.feature)) or node.clerp or known.get(key) or text
        if node.feature_type == "logit":
            label = node.clerp.removeprefix('Output "').rpartition('" (p=')[0] or node.clerp
        if isinstance(label, str) and label:
            found[node.node_id] = label
    return found
