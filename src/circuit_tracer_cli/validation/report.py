"""The full validation of a graph in order: the measurements, and their record."""

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
from circuit_tracer_cli.validation.attention import (
    AttentionSubject,
    HeadAblation,
    ScoreAblation,
    can_be_asked,
    measure_heads,
    measure_scores_of_heads,
)
from circuit_tracer_cli.validation.direct import DirectEffects, measure_direct_effects
from circuit_tracer_cli.validation.faithfulness import LayerFaithfulness, measure_layers
from circuit_tracer_cli.validation.pace import Pace, Phase
from circuit_tracer_cli.validation.precision import Precision, RowSample, measure_precision, rounded_to
from circuit_tracer_cli.validation.pruning import PruningScores, measure_scores
from circuit_tracer_cli.validation.statistics import sample, strong_and_random
from circuit_tracer_cli.validation.subject import Subject


@dataclass(frozen=True, slots=True, kw_only=True)
class Effort:
    """How much to measure.

    Args:
        samples: Number of features to turn off or double, and largest number of errors and of tokens.
        perturbations: Number of perturbations per layer.
        strongest: Number of edges to recompute in float32, for a 16-bit graph.
        seed: Seed of all random draws.
        budget: Seconds for all measurements on the model together; None for no limit. A phase that uses up its share
            stops with what it has measured.
    """

    samples: int = 24
    perturbations: int = 4
    strongest: int = 200
    seed: int = 0
    budget: float | None = None

    def __post_init__(self) -> None:
        for name in ("samples", "perturbations", "strongest"):
            if getattr(self, name) < 1:
                raise InvalidValue(f"{name} must be at least 1, not {getattr(self, name)}")
        if self.budget is not None and not self.budget > 0:
            raise InvalidValue(f"budget must be more than 0 seconds, not {self.budget}")


@dataclass(frozen=True, slots=True)
class Measured:
    """How much of a phase was measured: all, or less because its time was up or it was interrupted."""

    phase: str
    planned: int
    done: int


@dataclass(frozen=True, slots=True)
class Validation:
    """The measurements of a graph. A measurement is None if its phase was interrupted before its first item.

    Attributes:
        n_features: Number of feature nodes of the graph.
        n_unknown: How many of these aren't active in the model used for the measurement.
        direct: (a) Measured direct effects compared with columns of the adjacency matrix.
        ablation: (b) Influence compared with the effect of turning features off.
        edges: (b) Edges compared with constrained patching.
        faithfulness: (c) The local replacement model compared with the model, per layer.
        scores: (d) Replacement and completeness before and after pruning.
        precision: (e) 16-bit edges compared with float32; None for a float32 graph.
        phases: How much of each phase was measured.
        heads: (f) What goes through heads compared with turning them off; None if the family has no closed form.
        attention: (g) Scores of heads without their strongest pair of features.
    """

    prompt: str
    n_features: int
    n_unknown: int
    seed: int
    direct: DirectEffects | None
    ablation: NodeAblation | None
    edges: EdgePatching | None
    faithfulness: tuple[LayerFaithfulness, ...]
    scores: PruningScores | None
    precision: Precision | None
    phases: tuple[Measured, ...] = ()
    heads: HeadAblation | None = None
    attention: ScoreAblation | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return asdict(self)


class ValidationInterrupted(KeyboardInterrupt):
    """Raised on Ctrl-C during a validation; `report` has what was measured before."""

    def __init__(self, report: Validation) -> None:
        super().__init__()
        self.report = report


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
        effort: How much to measure, and for how long.
        float32_model: Loads the same model in float32, for a 16-bit graph; without it, precision isn't measured.
        progress: Progress callback.

    Raises:
        ModelMismatch: The graph can't have been made with this model and these transcoders.
        ValidationInterrupted: After Ctrl-C, with what was measured before.
    """
    effort, progress = effort or Effort(), progress or SilentProgress()
    progress.phase("unmodified run")
    subject = Subject(graph, model)
    compare = float32_model if rounded_to(graph) else None
    n_phases = 4 + 2 * can_be_asked(subject) + (compare is not None)
    return _Run(subject, effort, Pace(progress, effort.budget, n_phases), progress).run(compare)


class _Run:
    """Runs the phases in order. The report can be made at any time from what was measured by then."""

    def __init__(self, subject: Subject, effort: Effort, pace: Pace, progress: Progress) -> None:
        self.subject, self.effort, self.pace, self.progress = subject, effort, pace, progress
        self.found: dict[str, Any] = {}

    def run(self, float32_model: Callable[[], ReplacementModel] | None) -> Validation:
        """Measure everything. Raises ValidationInterrupted."""
        try:
            self._on_the_graph()
            self._on_the_model()
            if can_be_asked(self.subject):
                self._of_attention()
            if float32_model is not None:
                self._precision(float32_model)
        except ValidationInterrupted:
            raise
        except KeyboardInterrupt:
            raise ValidationInterrupted(self.report()) from None
        return self.report()

    def _on_the_graph(self) -> None:
        """Compute what needs no model: scores before and after pruning, and every node's influence."""
        self.progress.phase("pruning")
        self.found["scores"] = measure_scores(self.subject.graph)
        self.influence = node_influence(self.subject)

    def _on_the_model(self) -> None:
        subject, effort, seed = self.subject, self.effort, self.effort.seed
        nodes = {
            kind: sample(subject.nodes(kind), effort.samples, seed) for kind in ("feature", "error", "token")
        }
        features = strong_and_random(subject.nodes("feature"), self.influence, effort.samples, seed)
        layers = range(subject.n_layers - 1)
        total = sum(map(len, nodes.values()))
        self._keep("direct", "direct effects", total, lambda p: measure_direct_effects(subject, nodes, p))
        self._keep(
            "ablation",
            "ablations",
            len(features),
            lambda p: measure_ablations(subject, features, self.influence, p),
        )
        self._keep(
            "edges", "constrained patching", len(features), lambda p: measure_edges(subject, features, p)
        )
        self._keep(
            "faithfulness",
            "perturbations",
            len(layers) * effort.perturbations,
            lambda p: measure_layers(subject, layers, effort.perturbations, seed, p),
        )

    def _of_attention(self) -> None:
        about = AttentionSubject(self.subject, self.effort.samples, self.effort.seed)
        count = len(about.heads)
        self._keep("heads", "heads", count, lambda p: measure_heads(about, p))
        self._keep("attention", "attention scores", count, lambda p: measure_scores_of_heads(about, p))

    def _precision(self, float32_model: Callable[[], ReplacementModel]) -> None:
        exact = float32_model()
        sampling = RowSample(self.effort.strongest, self.effort.samples, self.effort.seed)
        graph = self.subject.graph
        targets = sampling.targets(graph)
        self._keep(
            "precision",
            "rows in float32",
            len(targets),
            lambda p: measure_precision(graph, exact, sampling, p),
        )

    def _keep(self, name: str, title: str, planned: int, measure: Callable[[Phase], Any]) -> None:
        """Run a phase and keep what it found. Raises ValidationInterrupted."""
        phase = self.pace.phase(title, planned)
        found = measure(phase)
        if phase.done or not planned:
            self.found[name] = found
        if phase.interrupted:
            raise ValidationInterrupted(self.report())
        if phase.cut:
            self.progress.note(
                f"{title}: {phase.done:,} of {planned:,} measured in {phase.seconds:.0f} s; a larger budget measures more"
            )

    def report(self) -> Validation:
        """The measurements so far."""
        subject = self.subject
        return Validation(
            prompt=subject.graph.input_string,
            n_features=len(subject.features),
            n_unknown=subject.n_unknown,
            seed=self.effort.seed,
            direct=self.found.get("direct"),
            ablation=self.found.get("ablation"),
            edges=self.found.get("edges"),
            faithfulness=self.found.get("faithfulness", ()),
            scores=self.found.get("scores"),
            precision=self.found.get("precision"),
            heads=self.found.get("heads"),
            attention=self.found.get("attention"),
            phases=tuple(Measured(phase.name, phase.planned, phase.done) for phase in self.pace.phases),
        )
