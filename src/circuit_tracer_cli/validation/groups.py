"""Groups compared with ablation: the effect on the first target of turning off all members of a group at once."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from circuit_tracer_cli.errors import UnsuitableValue
from circuit_tracer_cli.graph.graph import Graph
from circuit_tracer_cli.graph.grouping import Circuit, Floats, circuit_of
from circuit_tracer_cli.graph.groups import Grouping, with_numbers
from circuit_tracer_cli.interventions.run import Constraints
from circuit_tracer_cli.replacement import ReplacementModel
from circuit_tracer_cli.validation.subject import Subject


def measure_groups(graph: Graph, model: ReplacementModel, grouping: Grouping) -> Grouping:
    """Return the groups with the effect of ablating each on the first target's logit minus the vocabulary's mean.

    The numbers are `predicted` (by the graph), `measured` (attention patterns pinned, as the graph has them) and `measured_open`
    (attention free).

    Args:
        graph: The graph that was grouped.
        model: Its model.
        grouping: From `group_nodes(graph)`.

    Raises:
        UnsuitableValue: The first target isn't a token.
        ModelMismatch: The graph was made with another model.
    """
    target = int(graph.logit_token_ids[0])
    if target >= min(graph.cfg.d_vocab, graph.vocab_size) or "custom" in str(
        graph.metadata.get("targets", "")
    ):
        raise UnsuitableValue("the graph's first target isn't a token, so its logit can't be measured")
    subject, circuit = Subject(graph, model), circuit_of(graph.prune())
    place = {node: at for at, node in enumerate(circuit.ids)}
    number = {node: at for at, node in enumerate(graph.node_ids()[: graph.layout.n_features])}
    acts = np.zeros(len(circuit.ids))
    values = graph.activation_values[graph.selected_features].double().cpu().numpy()
    for node, at in number.items():
        if node in place:
            acts[place[node]] = values[at]
    logit = place[graph.node_ids()[graph.layout.logit_offset]]

    def centred(nodes: Iterable[str], constraints: Constraints) -> float:
        edits = tuple(subject.edit(number[node], 0.0) for node in nodes if node in number)
        logits = subject.run(edits, constraints).logits[-1].double()
        return float(logits[target] - logits.mean())

    pinned, free = Constraints(), Constraints(freeze_attention=False)
    before = centred((), pinned)
    return with_numbers(
        grouping,
        [
            {
                "predicted": predicted_change(circuit, acts, [place[node] for node in group.nodes], logit),
                "measured": centred(group.nodes, pinned) - before,
                "measured_open": centred(group.nodes, free) - before,
            }
            for group in grouping.groups
        ],
    )


def predicted_change(circuit: Circuit, activations: Floats, nodes: list[int], target: int) -> float:
    """Return the change of a target's value that the graph predicts if features are turned off.

    A feature that isn't turned off changes in proportion: by the sum of its inputs' changes, each times its edge, divided by its
    activation. Since the graph is linear, this is the sum over all paths.

    Args:
        circuit: Nodes and edges.
        activations: float64 `(N)`, zero for nodes that aren't features.
        nodes: The nodes to turn off; only features count.
        target: The node whose value is predicted.
    """
    change = np.zeros(len(circuit.ids))
    off = {node for node in nodes if circuit.kinds[node] == "feature"}
    for node in sorted(circuit.members, key=lambda at: (circuit.layers[at], at)):
        if node in off:
            change[node] = -1.0
        elif activations[node]:
            change[node] = float(circuit.A[node] @ change) / activations[node]
    return float(circuit.A[target] @ change)
