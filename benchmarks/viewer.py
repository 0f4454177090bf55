"""`python -m benchmarks.viewer`: how fast the viewer is with a large graph, in headless Chromium with software rendering.

Makes a synthetic graph, serves it on loopback, opens it and prints the time to the first picture and to all links, frames per
second while panning, and milliseconds per hover. Needs playwright and Chromium.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import tempfile
import time
import urllib.request
from pathlib import Path
from typing import Any

import numpy as np

from circuit_tracer_cli.server.serve import serve

_FLAGS = ["--no-sandbox", "--use-angle=swiftshader", "--enable-unsafe-swiftshader"]
_PAN = """async (seconds) => {
  const plot = document.querySelector('.plot'), box = plot.getBoundingClientRect();
  const at = (type, x, y, buttons) => plot.dispatchEvent(
    new PointerEvent(type, {clientX: x, clientY: y, button: 0, buttons, bubbles: true}));
  const [x, y] = [box.left + box.width / 2, box.top + box.height / 2];
  const zoomIn = () => new WheelEvent('wheel', {clientX: x, clientY: y, deltaY: -100, cancelable: true});
  for (let i = 0; i < 8; i += 1) plot.dispatchEvent(zoomIn());
  await new Promise((done) => setTimeout(done, 400));
  at('pointerdown', x, y, 1);
  const start = performance.now();
  let frames = 0, last = start, worst = 0;
  while (performance.now() - start < seconds * 1000) {
    at('pointermove', x + 120 * Math.sin(frames / 9), y + 60 * Math.cos(frames / 11), 1);
    await new Promise(requestAnimationFrame);
    const now = performance.now();
    worst = Math.max(worst, now - last);
    last = now;
    frames += 1;
  }
  at('pointerup', x + 50, y, 0);
  plot.dispatchEvent(new MouseEvent('dblclick'));
  return {fps: 1000 * frames / (last - start), worst};
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


def synthetic_graph(
    nodes: int, edges: int, layers: int = 26, positions: int = 24, seed: int = 0
) -> dict[str, Any]:
    """A graph file with this many nodes and distinct edges, each edge from a lower to a higher layer and not back in position."""
    rng = np.random.default_rng(seed)
    logits = 10
    features = nodes - positions - logits
    layer = np.sort(rng.integers(0, layers, features))
    position = rng.integers(1, positions, features)
    raw = [_node(f"E_{p}_{p}", "embedding", "E", p) for p in range(positions)]
    for index, (at, where) in enumerate(zip(layer.tolist(), position.tolist(), strict=True)):
        code = (at + index) * (at + index + 1) // 2 + index
        more = {
            "feature": code,
            "activation": 1.0 + index % 9,
            "influence": round(0.8 * (index * 0.618 % 1), 4),
        }
        raw.append(_node(f"{at}_{index}_{where}", "cross layer transcoder", str(at), where, **more))
    for k in range(logits):
        share = 0.5 ** (k + 1)
        more = {"token_prob": share, "influence": None, "clerp": f'Output " t{k}" (p={share:.3f})'}
        raw.append(_node(f"{layers}_{k}_{positions - 1}", "logit", str(layers), positions - 1, **more))
    depth = np.concatenate([np.full(positions, -1), layer, np.full(logits, layers)])
    place = np.concatenate([np.arange(positions), position, np.full(logits, positions - 1)])
    found = np.zeros(0, dtype=np.int64)
    while len(found) < edges:
        source, target = rng.integers(0, nodes, (2, 4 * edges))
        fits = (depth[source] < depth[target]) & (place[source] <= place[target])
        found = np.unique(np.concatenate([found, target[fits] * nodes + source[fits]]))
    found = np.sort(rng.permutation(found)[:edges])
    weights = (rng.standard_normal(edges) * rng.exponential(1.0, edges)).astype(np.float32)
    ids = [node["node_id"] for node in raw]
    links = [
        {"source": ids[pair % nodes], "target": ids[pair // nodes], "weight": weight}
        for pair, weight in zip(found.tolist(), weights.tolist(), strict=True)
    ]
    tokens = [f" word{p}" for p in range(positions)]
    metadata = {"slug": "large", "scan": "synthetic", "prompt_tokens": tokens, "prompt": "".join(tokens)}
    return {
        "metadata": {**metadata, "node_threshold": 0.8, "schema_version": 1},
        "qParams": {},
        "nodes": raw,
        "links": links,
    }


def _node(node_id: str, kind: str, layer: str, position: int, **more: Any) -> dict[str, Any]:
    base = {
        "node_id": node_id,
        "feature_type": kind,
        "layer": layer,
        "ctx_idx": position,
        "jsNodeId": node_id,
    }
    return {
        **base,
        "feature": 0,
        "clerp": "",
        "token_prob": 0.0,
        "influence": 0.1,
        "activation": None,
        **more,
    }


def measure(page: Any, url: str, edges: int) -> dict[str, float]:
    """Opens the graph and measures. Times in milliseconds from the navigation's start."""
    start = time.perf_counter()
    page.goto(f"{url}?slug=large")
    page.wait_for_selector(".plot-labels .token-label")
    page.evaluate("() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")
    first = time.perf_counter() - start
    page.wait_for_function(
        "(text) => document.querySelector('.counts').textContent.includes(text)", arg=f"{edges:,} links"
    )
    whole = time.perf_counter() - start
    page.wait_for_timeout(500)
    hover = page.evaluate(_HOVER, 60)
    pan = page.evaluate(_PAN, 3)
    return {
        "first picture s": first,
        "all links s": whole,
        "pan frames/s": pan["fps"],
        "hover median ms": statistics.median(hover),
        "hover worst ms": max(hover),
    }


def main() -> None:
    """Prints a table: each figure's median and best over the repetitions."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--nodes", type=int, default=10_000)
    parser.add_argument("--edges", type=int, default=1_000_000)
    parser.add_argument("--repeat", type=int, default=3)
    options = parser.parse_args()
    from playwright.sync_api import sync_playwright

    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    with tempfile.TemporaryDirectory() as name, sync_playwright() as engine:
        path = Path(name) / "large.json"
        path.write_text(json.dumps(synthetic_graph(options.nodes, options.edges), separators=(",", ":")))
        with serve(Path(name), port=0) as server:
            start = time.perf_counter()
            with urllib.request.urlopen(f"{server.url}api/graphs/large/compact") as reply:
                size = len(reply.read())
            cold = time.perf_counter() - start
            browser = engine.chromium.launch(executable_path=chromium, args=_FLAGS)
            page = browser.new_page(viewport={"width": 1440, "height": 900})
            runs = [measure(page, server.url, options.edges) for _ in range(options.repeat)]
            painter = page.evaluate("document.querySelector('[data-painter]').dataset.painter")
            browser.close()
    print(
        f"{options.nodes:,} nodes, {options.edges:,} edges; JSON and compact form derived in {cold:.2f} s, {size:,} bytes"
    )
    print(
        f"1440x900, {painter}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}, {options.repeat} repetitions"
    )
    for key in runs[0]:
        values = sorted(run[key] for run in runs)
        best = values[-1] if key.startswith("pan") else values[0]
        print(f"{key:18} median {statistics.median(values):8.2f}  best {best:8.2f}")


if __name__ == "__main__":
    main()
