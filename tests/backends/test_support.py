"""The table of supported models is what the suites run."""

from __future__ import annotations

from pathlib import Path

from tests.attribution import test_exactness
from tests.builders import BACKEND_NAMES, FAMILIES, backend
from tests.interventions import test_adjacency

from circuit_tracer_cli.backends import BACKENDS
from circuit_tracer_cli.backends.support import PROOFS, norms_in_words, supported

SUITES = {
    "oracle": test_exactness.test_rows_equal_the_float64_oracle_and_add_up,
    "sums": test_exactness.test_rows_equal_the_float64_oracle_and_add_up,
    "autograd": test_exactness.test_both_engines_agree,
    "backends": test_exactness.test_both_backends_agree,
    "interventions": test_adjacency.test_columns_are_measured_effects,
}
"""Proof → the test that gives it."""


def proved(proof: str) -> set[tuple[str, str, str]]:
    """Class, backend and kind of every case that a proof's test runs."""
    found = set()
    for mark in SUITES[proof].pytestmark:  # type: ignore[attr-defined]
        names, values = mark.args
        for value in values:
            case = dict(zip(names, getattr(value, "values", value), strict=True))
            if case["kind"] == "neurons":  # the table is about transcoder sets
                continue
            for name in [case["backend_name"]] if "backend_name" in case else BACKEND_NAMES:
                found.add((backend(case["family"]).config.original_architecture, name, case["kind"]))
    return found


def test_every_listed_model_is_proved_on_every_listed_backend_and_no_other() -> None:
    listed = {
        (row.architecture, name, kind)
        for row in supported()
        for name in row.backends
        for kind in ("plt", "clt")
    }
    assert set(SUITES) == set(PROOFS)
    assert {row.proofs for row in supported()} == {tuple(PROOFS)}
    for proof in PROOFS:
        assert proved(proof) == listed, proof
    assert tuple(BACKENDS) == BACKEND_NAMES


def test_the_engine_and_hooks_are_the_backends_own() -> None:
    for family in FAMILIES:
        model = backend(family)
        if family == "gpt_neox_sequential":
            continue
        (row,) = [row for row in supported() if row.architecture == model.config.original_architecture]
        assert (row.engine == "closed form") is (model.weights is not None)
        for hook in row.feature_inputs:
            for write in row.feature_outputs:
                model.feature_points(hook, write)


def test_norms_are_named_by_kind_and_place() -> None:
    words = {
        row.models: norms_in_words(backend(name).shape.layout)
        for name in FAMILIES
        for row in supported()
        if row.architecture == backend(name).config.original_architecture
    }
    assert words["GPT-J"] == "layer, one for both"
    assert words["Gemma 3"] == "RMS, before and after"
    assert words["OLMo 2"] == "RMS, after"
    assert words["GPT-2"] == "layer, before"


def test_the_documentation_has_the_table() -> None:
    page = (Path(__file__).parents[2] / "docs" / "models.md").read_text(encoding="utf-8")
    rows = [
        line for line in page.splitlines() if line.startswith("| ") and "`" in line and "demo" not in line
    ]
    assert rows == [f"| {row.models} | `{row.architecture}` | {row.norms} |" for row in supported()]
