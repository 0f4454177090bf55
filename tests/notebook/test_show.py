"""The inline viewer: what is framed, from where, and with which headers; and a graph's own card."""

from __future__ import annotations

import sys
import types
import urllib.request
from contextlib import ExitStack
from pathlib import Path

import pytest
import torch

from circuit_tracer_cli import create_graph_files, prune_graph, show_graph
from circuit_tracer_cli.errors import InvalidValue, MissingFile
from circuit_tracer_cli.graph.prune import pruned_graph
from circuit_tracer_cli.notebook.show import GraphView
from tests.graph.builders import random_graph


@pytest.fixture(autouse=True)
def no_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("JUPYTERHUB_SERVICE_PREFIX", raising=False)


def fetched(url: str) -> tuple[str, str]:
    """The body and its Content-Security-Policy."""
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with direct.open(url, timeout=30) as reply:
        return reply.read().decode(), reply.headers["Content-Security-Policy"]


def test_a_graph_is_framed_and_served() -> None:
    view = show_graph(random_graph(scan="my-set"), slug="mine", height=500)
    try:
        assert view.address == f"{view.url}?slug=mine"
        assert f'src="{view.url}?slug=mine"' in view._repr_html_()
        assert 'height="500"' in view._repr_html_()
        body, policy = fetched(view.url)
        assert "<title>" in body
        assert "http://localhost:*" in policy
        assert "googleusercontent" not in policy
        assert '"mine"' in fetched(f"{view.url}api/graphs")[0]
    finally:
        view.stop()


def test_a_file_a_folder_and_a_kept_folder(tmp_path: Path) -> None:
    graph = random_graph(scan="my-set")
    graph.save(tmp_path / "g.safetensors")
    for given in (str(tmp_path / "g.safetensors"), tmp_path / "g.safetensors"):
        view = show_graph(given, folder=tmp_path / "kept")
        view.stop()
    assert (tmp_path / "kept" / "graph.json").is_file()
    create_graph_files(graph, "other", tmp_path / "kept")
    view = show_graph(tmp_path / "kept", slug="other")
    listed = fetched(f"{view.url}api/graphs")[0]
    view.stop()
    assert '"graph"' in listed
    assert '"other"' in listed
    with pytest.raises(MissingFile):
        show_graph(tmp_path / "nowhere.safetensors")


def test_behind_a_hub_the_address_is_relative(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JUPYTERHUB_SERVICE_PREFIX", "/user/me/")
    view = show_graph(random_graph(scan="s"), allow_origins=["https://hub.example.org"])
    view.stop()
    assert view.address == f"/user/me/proxy/{view.server.port}/?slug=graph"
    other = show_graph(random_graph(scan="s"), base_url="/lab")
    other.stop()
    assert other.address == f"/lab/proxy/{other.server.port}/?slug=graph"
    with pytest.raises(InvalidValue, match="begin with /"):
        show_graph(random_graph(scan="s"), base_url="lab")


def test_in_colab_its_own_frame_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    output = types.ModuleType("google.colab.output")
    output.serve_kernel_port_as_iframe = lambda port, path, height: calls.append((port, path, height))  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "google.colab", types.ModuleType("google.colab"))
    monkeypatch.setitem(sys.modules, "google.colab.output", output)
    view = show_graph(random_graph(scan="s"))
    policy = fetched(view.url)[1]
    view._ipython_display_()
    view.stop()
    assert calls == [(view.server.port, "/?slug=graph", "800")]
    assert "https://*.googleusercontent.com" in policy


def test_an_address_cannot_break_out_of_its_attribute() -> None:
    view = GraphView(types.SimpleNamespace(url="x"), '"><script>', 1, ExitStack())  # type: ignore[arg-type]
    assert "<script>" not in view._repr_html_()


def test_a_graph_shows_what_it_is() -> None:
    graph = random_graph(input_string="<script>alert(1)</script>", scan="a&b")
    html = graph._repr_html_()
    assert "<script>" not in html
    assert "&lt;script&gt;" in html
    assert "a&amp;b" in html
    for part in ("features", "edges", "replacement", "completeness", "%"):
        assert part in html
    pruned = pruned_graph(graph, 0.8, 0.98)
    assert "; pruned" in pruned._repr_html_()
    scores = "replacement" + html.split("replacement", 1)[1].split("<")[0]
    assert scores in pruned._repr_html_()


def test_a_large_graph_is_not_computed_for_display(monkeypatch: pytest.MonkeyPatch) -> None:
    from circuit_tracer_cli.graph import nodes

    monkeypatch.setattr(nodes, "MOST_EDGES", 0)
    monkeypatch.setattr(nodes, "compute_node_influence", None)
    assert "strongest" not in random_graph()._repr_html_()
    assert torch.is_tensor(prune_graph(random_graph()).node_mask)
