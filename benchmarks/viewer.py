"""`python -m benchmarks.viewer`: how fast the viewer is with a large graph, in headless Chromium with software rendering.

Makes a synthetic graph, serves it on loopback from a process of its own, opens it and prints the time to the first picture and to
all links as the page sees them (from the navigation's start to the second frame after the picture), frames per second while
panning with the processor time that they took, milliseconds per hover, and while the links' threshold is dragged the slowest
frame and how long it takes after the last move until the right links are shown. Needs playwright and Chromium. On a machine
that does other work at the same time the processor time and the best of the repetitions say more than the median.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmarks.large_graph import synthetic_graph

FLAGS = ["--no-sandbox", "--use-angle=swiftshader", "--enable-unsafe-swiftshader"]
"""Chromium draws WebGL and the page itself in software."""
_WATCH = """(text) => {
  const times = (window.seen = {});
  const keep = (name) => requestAnimationFrame(() => requestAnimationFrame(() => (times[name] = performance.now())));
  const wanted = {
    first: () => document.querySelector('.plot-labels .token-label'),
    all: () => document.querySelector('.counts')?.textContent.includes(text),
  };
  new MutationObserver(() => {
    for (const name of Object.keys(wanted)) {
      if (!wanted[name]()) continue;
      delete wanted[name];
      keep(name);
    }
  }).observe(document, { subtree: true, childList: true, characterData: true });
}"""
_PAN = """async (seconds) => {
  const plot = document.querySelector('.plot'), box = plot.getBoundingClientRect();
  const at = (type, x, y, buttons) => plot.dispatchEvent(
    new MouseEvent(type, {clientX: x, clientY: y, button: 0, buttons, bubbles: true, view: window}));
  const [x, y] = [box.left + box.width / 2, box.top + box.height / 2];
  const zoomIn = () => new WheelEvent('wheel', {clientX: x, clientY: y, deltaY: -100, cancelable: true});
  for (let i = 0; i < 8; i += 1) plot.dispatchEvent(zoomIn());
  await new Promise((done) => setTimeout(done, 400));
  at('mousedown', x, y, 1);
  const start = performance.now();
  let frames = 0, last = start, worst = 0;
  while (performance.now() - start < seconds * 1000) {
    at('mousemove', x + 120 * Math.sin(frames / 9), y + 60 * Math.cos(frames / 11), 1);
    await new Promise(requestAnimationFrame);
    const now = performance.now();
    worst = Math.max(worst, now - last);
    last = now;
    frames += 1;
  }
  at('mouseup', x + 50, y, 0);
  plot.dispatchEvent(new MouseEvent('dblclick'));
  return {fps: 1000 * frames / (last - start), frames, worst};
}"""
_HOVER = """async (count) => {
  const plot = document.querySelector('.plot'), box = plot.getBoundingClientRect();
  const times = [];
  for (let i = 0; i < count; i += 1) {
    const x = box.left + box.width * (0.15 + 0.7 * ((i * 0.618) % 1)), y = box.top + box.height * (0.2 + 0.6 * ((i * 0.414) % 1));
    const start = performance.now();
    plot.dispatchEvent(new PointerEvent('pointermove', {clientX: x, clientY: y, bubbles: true}));
    times.push(performance.now() - start);
    await new Promise(requestAnimationFrame);
  }
  return times;
}"""


@contextmanager
def served(folder: Path, cache: Path) -> Iterator[str]:
    """The address of a server in a process of its own."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [
        sys.executable,
        "-m",
        "circuit_tracer_cli",
        "serve",
        str(folder),
        "--port",
        str(port),
        "--quiet",
    ]
    environment = {**os.environ, "CIRCUIT_TRACER_CACHE_DIR": str(cache)}
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    process = subprocess.Popen(command, env=environment, **quiet)
    url = f"http://127.0.0.1:{port}/"
    try:
        for _ in range(600):
            try:
                urllib.request.urlopen(f"{url}healthz").close()
                break
            except urllib.error.URLError:
                time.sleep(0.05)
        yield url
    finally:
        process.terminate()
        process.wait()


def seconds_to_derive(url: str) -> tuple[float, int]:
    """How long the server takes to answer with the compact form, and how large that is."""
    start = time.perf_counter()
    with urllib.request.urlopen(f"{url}api/graphs/large/compact") as reply:
        size = len(reply.read())
    return time.perf_counter() - start, size


def processor_seconds() -> float:
    """Processor time of all processes below this one, the server's and Chromium's; NaN where /proc isn't."""
    parents: dict[int, list[int]] = {}
    spent: dict[int, float] = {}
    for entry in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = entry.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        number = int(entry.parent.name)
        parents.setdefault(int(fields[1]), []).append(number)
        spent[number] = (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    total, below = 0.0, parents.get(os.getpid(), [])
    while below:
        total += sum(spent.get(number, 0.0) for number in below)
        below = [child for number in below for child in parents.get(number, [])]
    return total if spent else float("nan")


_PRUNE = """async (steps) => {
  const [, slider] = document.querySelectorAll('#prune input');
  const links = () => document.querySelector('[data-fact="links"]').textContent;
  let last = performance.now(), worst = 0;
  const frame = async () => {
    await new Promise(requestAnimationFrame);
    worst = Math.max(worst, performance.now() - last);
    last = performance.now();
  };
  for (let i = 1; i <= steps; i += 1) {
    slider.value = 1 - i / (4 * steps);
    slider.dispatchEvent(new Event('input', {bubbles: true}));
    await frame();
  }
  const end = performance.now();
  let settled = 0;
  for (let text = links(), still = 0; still < 60; still += 1) {
    await frame();
    if (links() === text) continue;
    [text, still, settled] = [links(), 0, performance.now() - end];
  }
  return {worst, settled};
}"""


def measure(page: Any, url: str) -> dict[str, float]:
    """Opens the graph and measures."""
    page.goto(f"{url}healthz")
    page.wait_for_timeout(500)
    before = processor_seconds()
    page.goto(f"{url}?slug=large", wait_until="commit")
    page.wait_for_function("() => window.seen?.first", timeout=60_000)
    opened = processor_seconds() - before
    page.wait_for_function("() => window.seen?.all", timeout=60_000)
    times = page.evaluate("() => window.seen")
    page.wait_for_timeout(1000)
    hover = page.evaluate(_HOVER, 60)
    before = processor_seconds()
    pan = page.evaluate(_PAN, 3)
    spent = processor_seconds() - before
    page.wait_for_timeout(500)
    page.keyboard.press("r")
    page.wait_for_selector(".curve-dot", state="attached", timeout=60_000)
    prune = page.evaluate(_PRUNE, 40)
    return {
        "first picture s": times["first"] / 1000,
        "  processor s until then": opened,
        "all links s": times["all"] / 1000,
        "pan frames/s": pan["fps"],
        "  processor ms/frame": 1000 * spent / pan["frames"],
        "  slowest frame ms": pan["worst"],
        "hover median ms": statistics.median(hover),
        "  slowest ms": max(hover),
        "prune slowest frame ms": prune["worst"],
        "prune settled ms": prune["settled"],
    }


def measured(url: str, options: argparse.Namespace) -> tuple[list[dict[str, float]], str, list[float]]:
    """Every repetition's figures, which painter drew, and the machine's load at each."""
    from playwright.sync_api import sync_playwright

    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    width, height = (int(part) for part in options.size.split("x"))
    runs, load = [], []
    with sync_playwright() as engine:
        browser = engine.chromium.launch(executable_path=chromium, args=FLAGS)
        page = browser.new_page(
            viewport={"width": width, "height": height}, device_scale_factor=options.density
        )
        page.add_init_script(f"({_WATCH})({json.dumps(f'{options.edges:,} links')})")
        for _ in range(options.repeat):
            load.append(os.getloadavg()[0])
            runs.append(measure(page, url))
        painter = page.evaluate("document.querySelector('[data-painter]').dataset.painter")
        browser.close()
    return runs, painter, load


def main() -> None:
    """Prints a table: each figure's median and best over the repetitions."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--nodes", type=int, default=10_000)
    parser.add_argument("--edges", type=int, default=1_000_000)
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--size", default="1440x900", help="width x height of the window in CSS pixels")
    parser.add_argument("--density", type=float, default=1.0, help="device pixels per CSS pixel")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder, cache = Path(name) / "graphs", Path(name) / "cache"
        folder.mkdir()
        graph = synthetic_graph(options.nodes, options.edges)
        (folder / "large.json").write_text(json.dumps(graph, separators=(",", ":")))
        with served(folder, cache) as url:
            derived, size = seconds_to_derive(url)
        with served(folder, cache) as url:
            found, _ = seconds_to_derive(url)
            runs, painter, load = measured(url, options)
    print(f"{options.nodes:,} nodes, {options.edges:,} edges; compact form of {size:,} bytes")
    print(f"{options.size}, density {options.density:g}, {painter}, {os.cpu_count()} cores")
    print(f"load {min(load):.1f} to {max(load):.1f}, {options.repeat} repetitions")
    print(f"{'form derived s':24} {derived:8.2f}\n{'form from its cache s':24} {found:8.2f}")
    for key in runs[0]:
        values = sorted(run[key] for run in runs)
        best = values[-1] if key == "pan frames/s" else values[0]
        print(f"{key:24} median {statistics.median(values):8.2f}  best {best:8.2f}")


if __name__ == "__main__":
    main()
