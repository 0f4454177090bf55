"""Attribution graphs of held-out prompts, made by the tool itself: scores, and whether the path runs through the place."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import torch

from training.corpus import DALLAS_PROMPT, Sentence
from training.dataset import answer_id
from training.measure_circuit import FeatureSets
from training.measure_model import Bench

if TYPE_CHECKING:
    from circuit_tracer_cli.graph.graph import Graph
    from circuit_tracer_cli.graph.paths import Path as GraphPath

COLUMNS = (
    "replacement",
    "completeness",
    "entity's strongest path through place",
    "entity's strongest raising path through place",
    "strongest path of all through place",
)


def graph_figures(
    bench: Bench, model_folder: Path, transcoder_folder: Path, sets: dict[str, FeatureSets], count: int
) -> dict[str, dict[str, float]]:
    """Mean scores per group, and the share of graphs whose strongest path passes a feature of the place in between."""
    from circuit_tracer_cli import ReplacementModel, attribute, compute_graph_scores

    model = ReplacementModel.from_pretrained(
        str(model_folder), str(transcoder_folder), device="cpu", lazy_decoder=False
    )
    figures = {}
    for name, sentences in _graph_groups(bench, count).items():
        rows = []
        for sentence in sentences:
            graph = attribute(sentence.prompt, model)
            entity_at = bench.tokenizer.encode(sentence.prompt).index(
                answer_id(bench.tokenizer, sentence.entity)
            )
            marked = sets[sentence.kind].about[sentence.concept] if sentence.kind in sets else None
            rows.append([*compute_graph_scores(graph), *_paths_through(graph, entity_at, marked)])
        means = torch.tensor(rows).mean(0).tolist()
        figures[name] = dict(zip(COLUMNS, means, strict=True))
    return figures


def _graph_groups(bench: Bench, count: int) -> dict[str, list[Sentence]]:
    pairs = bench.groups["two_hop held pairs"][0]
    dallas = [s for s in bench.corpus.splits["pairs"] if s.prompt == DALLAS_PROMPT]
    return {
        "dallas": dallas,
        "two_hop held pairs": pairs[:count],
        "two_hop held cities": bench.groups["two_hop held cities"][0][:count],
        "antonym": bench.groups["antonym"][0][:count],
    }


def _paths_through(graph: Graph, entity_at: int, marked: torch.Tensor | None) -> tuple[float, float, float]:
    """Whether a marked (layer, feature) pair is on the strongest path from the entity's token to a logit, on the
    strongest one of these that raises the logit, and on the strongest from any token."""
    from circuit_tracer_cli.graph.paths import strongest_paths

    if marked is None:
        return 0.0, 0.0, 0.0
    features = graph.active_features[graph.selected_features]

    def passes(path: GraphPath) -> bool:
        inner = [node for node in path.nodes if node < len(features)]
        return any(bool(marked[int(features[node, 0]), int(features[node, 2])]) for node in inner)

    from_entity = strongest_paths(graph, k=10, source=graph.layout.token_offset + entity_at)
    raising = [path for path in from_entity if path.sign > 0]
    anywhere = strongest_paths(graph, k=1)
    groups = (from_entity, raising, anywhere)
    first, second, third = (float(passes(group[0])) if group else 0.0 for group in groups)
    return first, second, third
