"""Labels of a transcoder set out of one viewer and into another."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from .conftest import Viewer

expect = pytest.importorskip("playwright.sync_api", reason="playwright isn't installed").expect
expect.set_options(timeout=20_000)

DALLAS, TEXAS = "76", "273"  # Cantor codes of feature 10 of layer 1 and feature 20 of layer 2


def menu(viewer: Viewer, name: str) -> None:
    viewer.page.get_by_role("button", name="Graph menu").click()
    viewer.page.get_by_role("menuitem", name=name).click()


def give_label(viewer: Viewer, text: str) -> None:
    viewer.page.locator(".detail-label").wait_for()
    viewer.page.keyboard.press("e")
    viewer.page.locator(".edit-field").fill(text)
    viewer.page.keyboard.press("Enter")
    viewer.saved()


def test_labels_are_exported_with_who_and_when(viewer: Viewer, tmp_path: Path) -> None:
    viewer.open(clickedId="1_10_1")
    menu(viewer, "Export shared labels")
    expect(viewer.page.locator(".notice")).to_contain_text("No feature of this transcoder set has a label")
    give_label(viewer, "a town in Texas")
    with viewer.page.expect_download() as waiting:
        menu(viewer, "Export shared labels")
    assert waiting.value.suggested_filename == "set.labels.json"
    waiting.value.save_as(tmp_path / "labels.json")
    document = json.loads((tmp_path / "labels.json").read_text())
    assert document["set"] == "set"
    assert document["labels"][DALLAS]["text"] == "a town in Texas"
    assert document["labels"][DALLAS]["time_ms"] > 0
    expect(viewer.page.locator(".notice")).to_contain_text("1 label")


def file_of_labels(folder: Path) -> Path:
    path = folder / "theirs.json"
    theirs = {
        DALLAS: {"text": "<img src=x onerror=alert(1)>", "author": "ada", "time_ms": 1_700_000_000_000},
        "307": {"text": "a new one", "author": "ada"},
        "x": {"text": "?"},
    }
    path.write_text(json.dumps({"format": "circuit-tracer-labels", "set": "another set", "labels": theirs}))
    return path


def choose(viewer: Viewer, path: Path) -> None:
    with viewer.page.expect_file_chooser() as waiting:
        menu(viewer, "Import shared labels")
    waiting.value.set_files(path)


def test_an_import_shows_what_differs_and_keeps_mine(viewer: Viewer, tmp_path: Path) -> None:
    viewer.open(clickedId="1_10_1")
    give_label(viewer, "a town in Texas")
    choose(viewer, file_of_labels(tmp_path))
    dialog = viewer.page.get_by_role("dialog", name="Import shared labels")
    expect(dialog).to_contain_text(
        "1 new, 0 the same as here, 1 for features that have a different label here"
    )
    expect(dialog).to_contain_text("another set: another set")
    expect(dialog).to_contain_text("1 unreadable entries")
    row = dialog.locator("tbody tr")
    expect(row).to_contain_text("L1 · 10")
    expect(row).to_contain_text("a town in Texas")
    expect(row).to_contain_text("<img src=x")
    expect(row).to_contain_text("ada, 2023-11-14")
    dialog.get_by_role("button", name="Add 1, keep mine").click()
    expect(viewer.page.locator(".notice")).to_have_text("Took 1 label, kept 1 of mine.")
    shared = viewer.page.evaluate("async () => (await fetch('api/graphs/demo/labels/shared')).json()")
    assert shared["labels"][DALLAS]["text"] == "a town in Texas"
    assert shared["labels"]["307"]["provenance"] == "imported"


def test_an_import_may_take_all_or_be_given_up(viewer: Viewer, tmp_path: Path) -> None:
    viewer.open(clickedId="1_10_1")
    give_label(viewer, "mine")
    path = file_of_labels(tmp_path)
    choose(viewer, path)
    viewer.page.get_by_role("button", name="Cancel").click()
    choose(viewer, path)
    viewer.page.get_by_role("button", name="Replace mine with all of them (1 change)").click()
    expect(viewer.page.locator(".notice")).to_have_text("Took 2 labels.")
    choose(viewer, path)
    expect(viewer.page.get_by_role("dialog", name="Import shared labels")).to_contain_text(
        "0 new, 2 the same"
    )
    expect(viewer.page.get_by_role("button", name="Add 0")).to_be_disabled()
    viewer.page.keyboard.press("Escape")


def test_a_file_without_labels_is_refused(viewer: Viewer, tmp_path: Path) -> None:
    viewer.open()
    path = tmp_path / "no.json"
    path.write_text('{"labels": 3}')
    choose(viewer, path)
    expect(viewer.page.locator(".notice")).to_contain_text("This file has no labels")
