"""Influence against ablation: do the graph's strong nodes and edges matter when they are turned off?"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from circuit_tracer_cli.graph.influence import compute_node_influence
from circuit_tracer_cli.interventions.passes import Recording
from circuit_tracer_cli.interventions.run import Constraints
from circuit_tracer_cli.validation.direct import edge_columns
from circuit_tracer_cli.validation.pace import Phase
from circuit_tracer_cli.validation.statistics import kl_divergence, spearman
from circuit_tracer_cli.validation.subject import Subject

TARGET_LAYERS = 3
"""Largest number of layers in which the targets of one source are measured."""


@dataclass(frozen=True, slots=True)
class NodeAblation:
    """Influence of features compared with turning them off.

    Attributes:
        n_features: Number of features turned off, one at a time.
        spearman: Rank correlation of influence and KL divergence; None with too few features.
        mean_kl, max_kl: KL(before ‖ after) in nats, at the last position.
    """

    n_features: int
    spearman: float | None
    mean_kl: float
    max_kl: float


@dataclass(frozen=True, slots=True)
class EdgePatching:
    """Edges compared with constrained patching (Ameisen et al. 2025, "Validating the replacement model", report Spearman 0.72).

    Attributes:
        n_edges: Number of pairs of a source turned off and a target in a later layer.
        spearman: Rank correlation of edge weight and measured change.
        same_sign: Share of the edges whose change has the predicted sign.
    """

    n_edges: int
    spearman: float | None
    same_sign: float | None


def node_influence(subject: Subject) -> Tensor:
    """Influence `(T)` of every node on the targets, on the CPU."""
    return compute_node_influence(subject.graph.edges, subject.graph.logit_weights).cpu()


def measure_ablations(
    subject: Subject, nodes: Sequence[int], influence: Tensor, phase: Phase | None = None
) -> NodeAblation:
    """Turn features off one at a time, with attention patterns pinned, and compare the effects with their `influence (T)`."""
    free = Constraints()
    kls: list[float] = []
    with phase or Phase() as phase:
        before = subject.run((), free).logits[-1]
        for node in phase.each(nodes):
            kls.append(kl_divergence(before, subject.run((subject.edit(node, 0.0),), free).logits[-1]))
    measured = torch.tensor(kls, dtype=torch.float64)
    correlation = spearman(influence[list(nodes[: len(kls)])].double(), measured)
    return NodeAblation(len(kls), correlation, float(measured.mean()) if kls else 0.0, max(kls, default=0.0))


def measure_edges(subject: Subject, sources: Sequence[int], phase: Phase | None = None) -> EdgePatching:
    """Turn sources off with all layers from theirs up to a target's pinned, and compare changes with edge weights.

    Norm scales stay free, so that the measurement shows how much they matter; pinning them too would be `direct`.
    """
    found: list[tuple[Tensor, Tensor]] = []
    with phase or Phase() as phase:
        # A neuron has a value of its own behind its linearisation; a feature's threshold would hide small changes.
        recording = Recording(apply_activation_function=subject.model.transcoders.of_model)
        base = subject.run((), Constraints(), recording)
        assert base.activations is not None
        before = subject.at_features(base.activations)
        columns = edge_columns(subject, sources)
        for source in phase.each(sources):
            column = columns[source][: len(before)]
            for targets, constraints in _target_groups(subject, source, column):
                edit = subject.edit(source, 0.0)
                after = subject.run((edit,), constraints, recording).activations
                assert after is not None
                change = subject.at_features(after) - before
                found.append((-column[targets], change[targets]))
    if not found:
        return EdgePatching(0, None, None)
    weights, changes = (torch.cat(part) for part in zip(*found, strict=True))
    same = float((weights.sign() == changes.sign()).double().mean())
    return EdgePatching(len(weights), spearman(weights, changes), same)


def _target_groups(subject: Subject, source: int, column: Tensor) -> Iterator[tuple[Tensor, Constraints]]:
    """The targets of a source by layer, strongest edges first, each with what is pinned to measure them."""
    layers = subject.features[:, 0]
    own = int(layers[source])
    strength = torch.zeros(subject.n_layers, dtype=torch.float64).index_add(0, layers, column.abs())
    for layer in strength.argsort(descending=True, stable=True)[:TARGET_LAYERS].tolist():
        targets = ((layers == layer) & (column != 0)).nonzero().squeeze(1)
        if layer > own and len(targets):
            yield targets, Constraints(constrained_layers=range(own, layer))
