"""Makes docs/screenshot.png: the viewer on the demo's Dallas graph, with the strongest feature selected. Needs Chromium."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from urllib.parse import urlencode

from playwright.sync_api import sync_playwright

from circuit_tracer_cli.server.serve import serve

PICTURE = Path(__file__).resolve().parents[1] / "docs" / "screenshot.png"
SIZE = {"width": 1440, "height": 900}


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
            browser.close()
    print(f"wrote {PICTURE}", file=sys.stderr)


def examples() -> Path | None:
    """The demo's feature examples, if they are there."""
    from circuit_tracer_cli.features.folders import examples_folder

    return examples_folder("demo")


if __name__ == "__main__":
    main()
