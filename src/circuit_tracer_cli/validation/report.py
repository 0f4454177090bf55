"""The whole validation of a graph in order: what is measured, and the record of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

from circuit_tracer_cli.errors import InvalidValue
from circuit_tracer_cli.graph.graph import Graph
from circuit_tracer_cli.replacement import ReplacementModel
from circuit_tracer_cli.types import Progress, SilentProgress
from circuit_tracer_cli.validation.ablation import (
    EdgePatching,
    NodeAblation,
    measure_ablations,
    measure_edges,
    node_influence,
)
from circuit_tracer_cli.validation.direct import DirectEffects, measure_direct_effects
from circuit_tracer_cli.validation.faithfulness import LayerFaithfulness, measure_layer
from circuit_tracer_cli.validation.precision import Precision, is_sixteen_bit, measure_precision
from circuit_tracer_cli.validation.pruning import PruningScores, measure_scores
from circuit_tracer_cli.validation.statistics import sample, strong_and_random
from circuit_tracer_cli.validation.subject import Subject


@dataclass(frozen=True, slots=True, kw_only=True)
class Effort:
    """How much is measured.

    Args:
        samples: Features turned off or doubled, and as many errors and tokens at most.
        perturbations: Per layer.
        strongest: Edges recomputed in float32, for a 16-bit graph.
        seed: Of every draw.
    """

    samples: int = 24
    perturbations: int = 4
    strongest: int = 200
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("samples", "perturbations", "strongest"):
            if getattr(self, name) < 1:
                raise InvalidValue(f"{name} is {getattr(self, name)}, but must be at least 1")


@dataclass(frozen=True, slots=True)
class Validation:
    """What was measured of a graph.

    Attributes:
        n_features: Feature nodes of the graph.
        n_unknown: Of these, how many aren't active in the model that it was measured on.
        direct: (a) Measured direct effects against adjacency columns.
        ablation: (b) Influence against the effect of turning features off.
        edges: (b) Edges against constrained patching.
        faithfulness: (c) The local replacement model against the model, per layer.
        scores: (d) Replacement and completeness before and after pruning.
        precision: (e) 16-bit edges against float32; None for a float32 graph.
    """

    prompt: str
    n_features: int
    n_unknown: int
    seed: int
    direct: DirectEffects
    ablation: NodeAblation
    edges: EdgePatching
    faithfulness: tuple[LayerFaithfulness, ...]
    scores: PruningScores
    precision: Precision | None

    def to_dict(self) -> dict[str, Any]:
        """As plain values for JSON."""
        return asdict(self)


def validate_graph(
    graph: Graph,
    model: ReplacementModel,
    effort: Effort | None = None,
    *,
    float32_model: Callable[[], ReplacementModel] | None = None,
    progress: Progress | None = None,
) -> Validation:
    """Measure a graph on the model that it was made from.

    Args:
        graph: Raw or pruned.
        model: Its model and transcoders.
        effort: How much to measure.
        float32_model: Loads the same in float32, for a graph in 16 bits; without it precision isn't measured.
        progress: Somebody to tell.

    Raises:
        ModelMismatch: The graph can't come from this model and these transcoders.
    """
    effort = effort or Effort()
    progress = progress or SilentProgress()
    progress.phase("unmodified run")
    subject = Subject(graph, model)
    count, seed = effort.samples, effort.seed
    progress.phase("direct effects")
    nodes = {kind: sample(subject.nodes(kind), count, seed) for kind in ("feature", "error", "token")}
    direct = measure_direct_effects(subject, nodes)
    progress.phase("ablations")
    features = strong_and_random(subject.nodes("feature"), node_influence(subject), count, seed)
    ablation = measure_ablations(subject, features)
    progress.phase("constrained patching")
    edges = measure_edges(subject, features)
    progress.phase("perturbations", subject.n_layers - 1)
    faithfulness = []
    for layer in range(subject.n_layers - 1):
        faithfulness.append(measure_layer(subject, layer, effort.perturbations, seed))
        progress.advance()
    progress.phase("pruning")
    scores = measure_scores(graph)
    precision = None
    if is_sixteen_bit(graph) and float32_model is not None:
        progress.phase("strongest edges in float32")
        precision = measure_precision(graph, float32_model(), effort.strongest)
    return Validation(
        prompt=graph.input_string,
        n_features=len(subject.features),
        n_unknown=subject.n_unknown,
        seed=seed,
        direct=direct,
        ablation=ablation,
        edges=edges,
        faithfulness=tuple(faithfulness),
        scores=scores,
        precision=precision,
    )
