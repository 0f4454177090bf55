"""Verdicts from numbers: every check can pass, warn and fail."""

from __future__ import annotations

import dataclasses
from datetime import UTC, datetime
from typing import Any

import pytest

from circuit_tracer_cli.validation.ablation import EdgePatching, NodeAblation
from circuit_tracer_cli.validation.attention import HeadAblation, ScoreAblation
from circuit_tracer_cli.validation.checks import Check, checks, stored_report
from circuit_tracer_cli.validation.direct import DirectEffects
from circuit_tracer_cli.validation.faithfulness import LayerFaithfulness
from circuit_tracer_cli.validation.precision import Precision
from circuit_tracer_cli.validation.pruning import PruningScores, Scores
from circuit_tracer_cli.validation.report import Validation

SCORES = PruningScores(Scores(0.8, 0.9), Scores(0.85, 0.92), Scores(0.7, 0.88), 10, 40)
GOOD = Validation(
    prompt="p",
    n_features=50,
    n_unknown=0,
    seed=0,
    direct=DirectEffects({"feature": 2, "error": 1}, 1234, 4e-6, 1e-3, "0_1_2", True),
    ablation=NodeAblation(24, 0.9, 0.01, 0.2),
    edges=EdgePatching(500, 0.72, 0.9),
    faithfulness=(LayerFaithfulness(0, 4, 0.8, 0.3), LayerFaithfulness(1, 4, 0.9, 0.2)),
    scores=SCORES,
    precision=None,
    heads=HeadAblation(12, 3e-6, True, 0.8),
    attention=ScoreAblation(9, 2e-5, True, 0.5),
)


def found(**parts: Any) -> dict[str, Check]:
    return {check.name: check for check in checks(dataclasses.replace(GOOD, **parts))}


def test_a_good_graph() -> None:
    good = found()
    assert {name: check.verdict for name, check in good.items()} == {
        "direct_effects": "pass",
        "influence": "pass",
        "edges": "pass",
        "faithfulness": "pass",
        "heads": "pass",
        "attention": "pass",
        "replacement": "info",
        "completeness": "info",
    }
    assert good["faithfulness"].value == pytest.approx(0.85)
    assert "1,234 edges from 2 features, 1 error" in good["direct_effects"].detail
    assert "0.700" in good["replacement"].detail
    assert "0.850 without pruned errors" in good["replacement"].detail


@pytest.mark.parametrize(
    ("name", "parts", "verdict"),
    [
        ("direct_effects", {"direct": dataclasses.replace(GOOD.direct, agrees=False)}, "fail"),
        ("direct_effects", {"direct": dataclasses.replace(GOOD.direct, agrees=None)}, "info"),
        ("heads", {"heads": HeadAblation(12, 0.1, False, 0.8)}, "fail"),
        ("heads", {"heads": HeadAblation(12, 0.1, None, None)}, "info"),
        ("attention", {"attention": ScoreAblation(9, 0.1, False, 0.8)}, "fail"),
        ("attention", {"attention": ScoreAblation(9, 0.1, None, 0.8)}, "info"),
        ("influence", {"ablation": NodeAblation(24, 0.4, 0, 0)}, "warn"),
        ("influence", {"ablation": NodeAblation(24, -0.4, 0, 0)}, "fail"),
        ("influence", {"ablation": NodeAblation(1, None, 0, 0)}, "info"),
        ("edges", {"edges": EdgePatching(500, 0.59, 0.9)}, "warn"),
        ("edges", {"edges": EdgePatching(0, None, None)}, "info"),
        ("faithfulness", {"faithfulness": (LayerFaithfulness(0, 4, 0.6, 0.3),)}, "warn"),
        ("faithfulness", {"faithfulness": (LayerFaithfulness(0, 4, 0.1, 0.3),)}, "fail"),
        ("precision", {"precision": Precision("bfloat16", 200, 0, 0.002, 0.1)}, "pass"),
        ("precision", {"precision": Precision("bfloat16", 200, 3, 0.02, 0.1)}, "warn"),
        ("precision", {"precision": Precision("bfloat16", 200, 0, 0.2, 0.9)}, "fail"),
        ("precision", {"precision": Precision("bfloat16", 0, 200, None, None)}, "info"),
        ("unknown_features", {"n_unknown": 3}, "warn"),
    ],
)
def test_verdicts(name: str, parts: dict[str, Any], verdict: str) -> None:
    assert found(**parts)[name].verdict == verdict


def test_what_has_nothing_to_measure_has_no_number() -> None:
    assert found(ablation=NodeAblation(1, None, 0, 0))["influence"].value is None
    assert "faithfulness" not in found(faithfulness=())
    assert found(precision=Precision("bfloat16", 200, 3, 0.02, 0.1))["precision"].value == pytest.approx(2)


def test_the_report_of_a_file_is_plain_and_dated() -> None:
    stored = stored_report(GOOD, datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC))
    assert stored["date"] == "2026-01-02T03:04:05+00:00"
    assert stored["checks"][0] == {
        "name": "direct_effects",
        "label": "Direct effects",
        "value": 4e-6,
        "unit": None,
        "verdict": "pass",
        "detail": "largest error of 1,234 edges from 2 features, 1 error, measured with everything else pinned",
    }
