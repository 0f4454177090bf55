"""The report of a validation, in the top bar and in the dialog about the graph."""

from __future__ import annotations

import json
from typing import Any

import pytest

from .conftest import Viewer
from .graphs import SCRIPT, demo

expect = pytest.importorskip("playwright.sync_api", reason="playwright isn't installed").expect
expect.set_options(timeout=20_000)

CHECKS: list[Any] = [
    {"name": "direct_effects", "label": "Direct effects", "value": 2.1e-6, "verdict": "pass", "detail": "24 columns"},
    {"name": "influence", "label": "Influence", "value": 0.41, "unit": "Spearman", "verdict": "warn", "detail": SCRIPT},
    {"name": "replacement", "label": "Replacement", "value": 0.89, "unit": None, "verdict": "info", "detail": "unpruned"},
    {"verdict": "?"},
    None,
]  # fmt: skip


def test_a_report_is_one_word_above_and_a_table_in_the_dialog(viewer: Viewer) -> None:
    document = demo()
    document["metadata"] |= {"slug": "validated"}
    document["metadata"]["validation"] = {"version": 1, "date": "2026-01-31T12:00:00Z", "checks": CHECKS}
    (viewer.folder / "validated.json").write_text(json.dumps(document))
    viewer.open("validated")
    badge = viewer.page.get_by_role("button", name="validated, weak 1/2")
    badge.click()
    rows = viewer.page.locator(".validation tbody tr")
    expect(rows).to_have_count(4)
    expect(rows.nth(0)).to_contain_text("2.1 × 10⁻⁶")
    expect(rows.nth(0).locator(".verdict")).to_have_text("holds")
    expect(rows.nth(1)).to_contain_text("0.41 Spearman")
    expect(rows.nth(1)).to_contain_text("<script>")
    expect(rows.nth(2).locator(".verdict")).to_have_text("no verdict")
    expect(viewer.page.locator(".validation h3")).to_contain_text("2026-01-31")


def test_a_graph_without_a_report_has_no_badge(viewer: Viewer) -> None:
    viewer.open()
    expect(viewer.page.locator(".validation-badge")).to_have_count(0)
