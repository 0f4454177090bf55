"""What automatic groups are worth on the demo: `python -m benchmarks.groups`.

The demo knows which features stand for which place (`demo/data`), chosen on other questions than these. On held-out questions,
features at the city's token are grouped, and the place's features are compared with the groups; each group is ablated, and what
the graph predicts is compared with what the model does.
"""

from __future__ import annotations

import argparse
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from statistics import mean

from circuit_tracer_cli import ReplacementModel, attribute
from circuit_tracer_cli.demo import Question, places, questions
from circuit_tracer_cli.graph.graph import Graph
from circuit_tracer_cli.graph.groups import group_nodes
from circuit_tracer_cli.validation.groups import measure_groups
from circuit_tracer_cli.validation.statistics import spearman

LEVELS = (0.2, 0.35, 0.5, 0.7, 0.9)


@dataclass
class Tally:
    """What is collected over the questions at one level."""

    f1: list[float] = field(default_factory=list)
    precision: list[float] = field(default_factory=list)
    recall: list[float] = field(default_factory=list)
    groups: list[int] = field(default_factory=list)
    stability: list[float] = field(default_factory=list)
    predicted: list[float] = field(default_factory=list)
    measured: list[float] = field(default_factory=list)
    measured_open: list[float] = field(default_factory=list)
    acyclic: bool = True


def main() -> None:
    """Print one line per level, and the two baselines."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--questions", type=int, default=20)
    parser.add_argument("--set", default="demo", choices=("demo", "demo-plt"))
    parser.add_argument("--across-positions", action="store_true")
    arguments = parser.parse_args()
    model = ReplacementModel.from_pretrained("demo", arguments.set)
    known = places("plt" if arguments.set == "demo-plt" else "clt")
    tallies = {level: Tally() for level in LEVELS}
    baselines: dict[str, list[float]] = {"one group per position": [], "random groups of these sizes": []}
    for asked in _spread(arguments.questions):
        graph = attribute(asked.prompt, model)
        place = {(one.layer, one.feature) for one in known[asked.place].features}
        at_city, truth = _nodes_at_city(graph, asked.city, place)
        if len(truth) < 2 or len(truth) == len(at_city):
            continue
        baselines["one group per position"].append(_scores([at_city], at_city, truth)[2])
        for level, tally in tallies.items():
            found = measure_groups(
                graph, model, group_nodes(graph, level, across_positions=arguments.across_positions)
            )
            groups = [set(group.nodes) for group in found.groups]
            precision, recall, f1 = _scores(groups, at_city, truth)
            tally.precision.append(precision)
            tally.recall.append(recall)
            tally.f1.append(f1)
            tally.groups.append(len(groups))
            tally.stability.append(float(found.numbers["stability"] or 0))
            tally.acyclic &= found.acyclic
            for group in found.groups:
                tally.predicted.append(float(group.numbers["predicted"] or 0))
                tally.measured.append(float(group.numbers["measured"] or 0))
                tally.measured_open.append(float(group.numbers["measured_open"] or 0))
            if level == LEVELS[-1]:
                baselines["random groups of these sizes"].append(_random_f1(groups, at_city, truth))
    for level, t in tallies.items():
        print(
            f"level {level}: {len(t.f1)} questions, {mean(t.groups):.1f} groups, acyclic {t.acyclic}, stability "
            f"{mean(t.stability):.2f}; place: precision {mean(t.precision):.2f}, recall {mean(t.recall):.2f}, "
            f"F1 {mean(t.f1):.2f}; ablation, Spearman with the prediction: {_rank(t.predicted, t.measured)} (attention "
            f"pinned), {_rank(t.predicted, t.measured_open)} (free)"
        )
    for name, values in baselines.items():
        print(f"{name}: F1 {mean(values):.2f}")


def _spread(count: int) -> Iterator[Question]:
    """Questions in turn from every kind and relation."""
    groups, given = [list(asked) for _, _, asked in questions()], 0
    for rank in range(max(map(len, groups))):
        for asked in groups:
            if rank < len(asked) and given < count:
                given += 1
                yield asked[rank]


def _nodes_at_city(graph: Graph, city: str, place: set[tuple[int, int]]) -> tuple[set[str], set[str]]:
    """Ids of the features kept at the city's last token, and of those that stand for its place."""
    tokens = graph.prompt_tokens or []
    at = max(i for i, token in enumerate(tokens) if token.strip() and city.endswith(token.strip()))
    pruned = graph.prune()
    assert pruned.pruning is not None
    rows = graph.active_features[graph.selected_features].tolist()
    kept = pruned.pruning.node_mask.tolist()
    here = {graph.node_id(n): (layer, f) for n, (layer, p, f) in enumerate(rows) if kept[n] and p == at}
    return set(here), {node for node, feature in here.items() if feature in place}


def _scores(groups: Sequence[set[str]], among: set[str], truth: set[str]) -> tuple[float, float, float]:
    """Pairwise precision, recall and F1: of pairs in one group with at least one feature of the place, those with two."""
    of = {node: at for at, group in enumerate(groups) for node in group}
    same = [(a, b) for a, b in combinations(sorted(among), 2) if of.get(a, a) == of.get(b, b)]
    touched = [pair for pair in same if truth & set(pair)]
    right = sum(set(pair) <= truth for pair in touched)
    wanted = len(truth) * (len(truth) - 1) / 2
    precision, recall = right / len(touched) if touched else 0.0, right / wanted
    return precision, recall, 2 * precision * recall / (precision + recall) if right else 0.0


def _random_f1(groups: Sequence[set[str]], among: set[str], truth: set[str]) -> float:
    """F1 of groups of the same sizes drawn at random among the features at the city, over 50 draws."""
    draw, values = random.Random(0), []
    sizes = [len(group & among) for group in groups]
    for _ in range(50):
        nodes = sorted(among)
        draw.shuffle(nodes)
        parts, start = [], 0
        for size in sizes:
            parts.append(set(nodes[start : start + size]))
            start += size
        values.append(_scores(parts, among, truth)[2])
    return mean(values)


def _rank(predicted: Sequence[float], measured: Sequence[float]) -> str:
    import torch

    value = spearman(torch.tensor(predicted), torch.tensor(measured))
    return "–" if value is None else f"{value:.2f}"


if __name__ == "__main__":
    main()
