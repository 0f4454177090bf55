"""Makes docs/screenshot.png: the viewer on the demo's Dallas graph, with the strongest feature selected. Needs Chromium.

Every panel by itself, and the page in other windows, go to tests/browser/references, to look through after a change of the page.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Literal
from urllib.parse import urlencode

from playwright.sync_api import Browser, sync_playwright

from circuit_tracer_cli.server.serve import serve

PICTURE = Path(__file__).resolve().parents[1] / "docs" / "screenshot.png"
REFERENCES = Path(__file__).resolve().parents[1] / "tests" / "browser" / "references"
SIZE = {"width": 1440, "height": 900}
PANELS = [
    "link-graph",
    "subgraph",
    "connections",
    "nodes",
    "paths",
    "scatter",
    "interventions",
    "feature",
    "notes",
]
WINDOWS = {
    "desktop-dark": (1280, 720, "dark"),
    "phone-sideways": (844, 390, "light"),
    "phone-upright": (390, 844, "dark"),
}


def trace(folder: Path) -> str:
    """Trace the demo into a folder. The words of the address that select its strongest feature and pin its strongest paths."""
    command = [sys.executable, "-m", "circuit_tracer_cli", "demo", "--graph-file-dir", str(folder), "--json"]
    done = subprocess.run(command, stdout=subprocess.PIPE, stdin=subprocess.DEVNULL, text=True, check=True)
    record = json.loads(done.stdout)
    strongest = next(node["node_id"] for node in record["strongest_nodes"] if node["kind"] == "feature")
    pinned = dict.fromkeys(node for path in record["strongest_paths"] for node in path["nodes"])
    return urlencode({"slug": "demo-dallas", "clickedId": strongest, "pinnedIds": ",".join(pinned)})


def main() -> None:
    """Trace, serve, select, photograph."""
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if chromium is None:
        sys.exit("error: no Chromium on this machine\nhint: apt-get install chromium")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        view = trace(folder)
        with serve(folder, port=0, features_dir=examples()) as server, sync_playwright() as playwright:
            browser = playwright.chromium.launch(
                executable_path=chromium, args=["--no-sandbox", "--disable-quic"]
            )
            page = browser.new_page(viewport=SIZE, device_scale_factor=1)
            page.goto(f"{server.url}?{view}", wait_until="networkidle")
            page.wait_for_timeout(1000)
            page.screenshot(path=PICTURE)
            photograph_parts(browser, f"{server.url}?{view}")
            browser.close()
    print(f"wrote {PICTURE} and {REFERENCES}", file=sys.stderr)


def photograph_parts(browser: Browser, address: str) -> None:
    """Every panel, and the page in windows of other sizes."""
    REFERENCES.mkdir(exist_ok=True)
    page = browser.new_page(viewport=SIZE, device_scale_factor=1)
    for panel in PANELS:
        page.goto(f"{address}&panel={panel}", wait_until="networkidle")
        page.wait_for_timeout(500)
        area = page.locator(f'.panel[data-names~="{panel}"]')
        area.screenshot(path=REFERENCES / f"{panel}.png")
    page.goto(f"{address}&pruningThreshold=0.7&edgeThreshold=0.9", wait_until="networkidle")
    page.keyboard.press("r")
    page.wait_for_timeout(1500)
    page.locator(".prune").screenshot(path=REFERENCES / "prune.png")
    for name, (width, height, theme) in WINDOWS.items():
        scheme: Literal["dark", "light"] = "dark" if theme == "dark" else "light"
        window = browser.new_page(viewport={"width": width, "height": height}, color_scheme=scheme)
        window.goto(address, wait_until="networkidle")
        window.wait_for_timeout(500)
        window.screenshot(path=REFERENCES / f"{name}.png")


def examples() -> Path | None:
    """The demo's feature examples, if they are there."""
    from circuit_tracer_cli.features.packed import examples_folder

    return examples_folder("demo")


if __name__ == "__main__":
    main()
