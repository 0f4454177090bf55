"""A validation as a list of checks, each with a number, a verdict and a sentence, for terminal, graph files and viewer."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any, Literal

from circuit_tracer_cli.validation.ablation import EdgePatching, NodeAblation
from circuit_tracer_cli.validation.attention import HeadAblation, ScoreAblation
from circuit_tracer_cli.validation.direct import DirectEffects
from circuit_tracer_cli.validation.precision import Precision
from circuit_tracer_cli.validation.pruning import PruningScores
from circuit_tracer_cli.validation.report import Validation

VERSION = 1
"""Version of the report's format in files."""

CORRELATION = (0.6, 0.3)
"""A check passes from the first Spearman correlation up, and fails below the second; Ameisen et al. (2025) report 0.72."""
COSINE = (0.8, 0.5)
"""The same for the mean cosine of the local replacement model."""
ROUNDING = (0.01, 0.05)
"""The check passes up to the first median relative error of 16-bit edges, and fails above the second."""

Verdict = Literal["pass", "warn", "fail", "info"]


@dataclass(frozen=True, slots=True)
class Check:
    """One check of a graph.

    Attributes:
        name: Name for programs.
        label: Label for people.
        value: The result; None if there is too little to measure.
        unit: Unit of the number; None for a plain one.
        verdict: Verdict on the number; `info` if no threshold makes sense.
        detail: Description of what was measured.
    """

    name: str
    label: str
    value: float | None
    unit: str | None
    verdict: Verdict
    detail: str


def checks(report: Validation) -> tuple[Check, ...]:
    """All checks that a validation has results for."""
    return tuple(_checks(report))


def stored_report(report: Validation, now: datetime | None = None) -> dict[str, Any]:
    """Return the record for a graph file's `metadata.validation`."""
    date = (now or datetime.now(UTC)).isoformat(timespec="seconds")
    return {"version": VERSION, "date": date, "checks": [asdict(check) for check in checks(report)]}


def _checks(report: Validation) -> Iterator[Check]:
    if report.n_unknown:
        detail = f"of {report.n_features:,} features aren't active in the model used for the measurement"
        yield Check("unknown_features", "Unknown features", report.n_unknown, None, "warn", detail)
    if report.direct is not None:
        yield _direct(report.direct)
    if report.ablation is not None:
        yield _influence(report.ablation)
    if report.edges is not None:
        yield _edges(report.edges)
    if report.faithfulness:
        yield _faithfulness(report)
    if report.heads is not None:
        yield _heads(report.heads)
    if report.attention is not None and report.attention.n_scores:
        yield _attention(report.attention)
    if report.scores is not None:
        yield from _scores(report.scores)
    if report.precision is not None:
        yield _precision(report.precision)


def _direct(direct: DirectEffects) -> Check:
    columns = ", ".join(_count(count, kind) for kind, count in direct.n_columns.items())
    detail = f"largest error of {_count(direct.n_entries, 'edge')} from {columns}, measured with everything else pinned"
    if direct.agrees is None:
        detail += "; no verdict, because of 16-bit rounding"
    verdict: Verdict = "info" if direct.agrees is None else "pass" if direct.agrees else "fail"
    return Check("direct_effects", "Direct effects", direct.max_absolute_error, None, verdict, detail)


def _influence(ablation: NodeAblation) -> Check:
    detail = (
        f"influence compared with turning off {_count(ablation.n_features, 'feature')} one at a time;"
        f" KL {ablation.mean_kl:.2g} nats on average, {ablation.max_kl:.2g} at most"
    )
    return Check(
        "influence", "Influence", ablation.spearman, "Spearman", _at_least(ablation.spearman, *CORRELATION), detail
    )  # fmt: skip


def _edges(edges: EdgePatching) -> Check:
    detail = f"{_count(edges.n_edges, 'edge')} against constrained patching"
    if edges.same_sign is not None:
        detail += f"; {edges.same_sign:.1%} of the targets change in the predicted direction"
    return Check(
        "edges", "Edges", edges.spearman, "Spearman", _at_least(edges.spearman, *CORRELATION), detail
    )


def _heads(heads: HeadAblation) -> Check:
    detail = (
        f"largest difference between what goes through {_count(heads.n_heads, 'head')} and what the targets lose without,"
        " measured with everything else pinned"
    )
    return _exact("heads", "Heads", heads, detail)


def _attention(scores: ScoreAblation) -> Check:
    detail = (
        f"largest error of {_count(scores.n_scores, 'difference')} of two keys' scores without the strongest pair of features,"
        " measured as attention with all else pinned"
    )
    return _exact("attention", "Attention scores", scores, detail)


def _exact(name: str, label: str, found: HeadAblation | ScoreAblation, detail: str) -> Check:
    """A check of what the frozen network gives exactly, with how well it predicts the free model."""
    if found.spearman is not None:
        detail += f"; with nothing pinned Spearman {found.spearman:.2f}"
    if found.agrees is None:
        detail += "; no verdict, because of 16-bit rounding or norms that change with the edit"
    verdict: Verdict = "info" if found.agrees is None else "pass" if found.agrees else "fail"
    return Check(name, label, found.max_absolute_error, None, verdict, detail)


def _faithfulness(report: Validation) -> Check:
    layers = report.faithfulness
    mean = sum(layer.cosine for layer in layers) / len(layers)
    lowest = min(layers, key=lambda layer: layer.cosine)
    detail = (
        "how closely the replacement model follows the model after a perturbation, mean over layers;"
        f" lowest {lowest.cosine:.3f}, in layer {lowest.layer}"
    )
    return Check("faithfulness", "Faithfulness", mean, "cosine", _at_least(mean, *COSINE), detail)


def _scores(scores: PruningScores) -> Iterator[Check]:
    pruned, kept = scores.errors_pruned, scores.errors_kept
    for name, meaning in (
        ("replacement", "of the influence starts at tokens rather than errors"),
        ("completeness", "of the nodes' input, weighted by influence, doesn't come from errors"),
    ):
        value = getattr(scores.before, name)
        detail = f"{value:.1%} {meaning}"
        if kept is not None:
            detail += f"; after pruning {getattr(kept, name):.3f}, or {getattr(pruned, name):.3f} without pruned errors"
        yield Check(name, name.capitalize(), value, None, "info", detail)


def _precision(precision: Precision) -> Check:
    median = precision.median_relative_error
    detail = (
        f"median error of the {precision.n_edges:,} strongest {precision.dtype} edges compared with float32"
    )
    if precision.max_relative_error is not None:
        detail += f", {precision.max_relative_error:.1%} at most"
    if precision.n_gone:
        detail += f"; {precision.n_gone:,} more have no counterpart in float32"
    if precision.from_features is not None:
        detail += (
            f". Of {_count(precision.n_rows, 'row')} edges from features are off by {precision.from_features:.1%} (L2, median),"
            f" single ones by up to {precision.single_edge:.0%} of their row's largest"
        )
    if precision.from_errors is not None:
        detail += f", edges from errors by {precision.from_errors:.1%}"
    if precision.selection is not None:
        detail += f"; {precision.selection:.1%} of the active features differ"
    verdict: Verdict = "info" if median is None else _at_least(-median, *(-limit for limit in ROUNDING))
    value = None if median is None else 100 * median
    return Check("precision", "Precision", value, "%", verdict, detail)


def _at_least(value: float | None, passes: float, warns: float) -> Verdict:
    if value is None:
        return "info"
    return "pass" if value >= passes else "warn" if value >= warns else "fail"


def _count(count: int, noun: str) -> str:
    return f"{count:,} {noun}{'' if count == 1 else 's'}"
