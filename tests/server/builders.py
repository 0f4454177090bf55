"""Small graph files, feature folders and clients for the server's tests."""

from __future__ import annotations

import gzip
import json
import socket
import struct
import zlib
from pathlib import Path
from typing import Any

from starlette.testclient import TestClient

from circuit_tracer_cli.server.access import AccessRules, check_origins
from circuit_tracer_cli.server.app import Settings, create_app

PAGE = "http://127.0.0.1:8041"


def make_graph(slug: str = "demo", **params: Any) -> dict[str, Any]:
    """A graph of one token, one feature and one logit, with `params` as its qParams."""
    nodes = [
        {
            "node_id": "1_7_0",
            "feature": 43,
            "layer": "1",
            "ctx_idx": 0,
            "feature_type": "cross layer transcoder",
        },
        {"node_id": "E_5_0", "feature": 0, "layer": "E", "ctx_idx": 0, "feature_type": "embedding"},
        {"node_id": "3_9_0", "feature": 9, "layer": "3", "ctx_idx": 0, "feature_type": "logit"},
    ]
    nodes = [{**node, "jsNodeId": node["node_id"], "clerp": "", "influence": 0.1} for node in nodes]
    links = [{"source": "E_5_0", "target": "1_7_0", "weight": 0.10000000149011612}]
    metadata = {"slug": slug, "scan": "set", "prompt_tokens": [" a"], "prompt": " a", "node_threshold": 0.8}
    return {"metadata": metadata, "qParams": params, "nodes": nodes, "links": links}


def write_graph(folder: Path, slug: str = "demo", **params: Any) -> Path:
    """Writes `make_graph` to its file and returns the path."""
    path = folder / f"{slug}.json"
    path.write_text(json.dumps(make_graph(slug, **params), indent=2, ensure_ascii=False), encoding="utf-8")
    return path


def write_features(
    folder: Path, records: dict[tuple[int, int], Any], layers: int = 2, width: int = 4
) -> None:
    """Feature examples in the index-and-binary layout."""
    index = []
    for layer in range(layers):
        offsets, packed = [0], b""
        for feature in range(width):
            if (layer, feature) in records:
                body = zlib.compress(json.dumps(records[layer, feature]).encode())
                packed += struct.pack("<I", len(body)) + body
            offsets.append(len(packed))
        (folder / f"layer_{layer}.bin").write_bytes(packed)
        index.append({"filename": f"layer_{layer}.bin", "offsets": offsets})
    (folder / "index.json.gz").write_bytes(gzip.compress(json.dumps(index).encode()))


def make_client(
    data_dir: Path, *, base: str = PAGE, origins: tuple[str, ...] = (), **settings: Any
) -> TestClient:
    """A client for an app over `data_dir`, speaking as a browser that opened `base`."""
    static = settings.pop("static_dir", None) or make_page(data_dir.parent / "page")
    rules = AccessRules(
        settings.pop("host", "127.0.0.1"), check_origins(origins), settings.pop("token", None)
    )
    peer = settings.pop("peer", "127.0.0.1")
    settings.setdefault("feature_cache", data_dir.parent / "feature-cache")
    settings.setdefault("spare_dir", data_dir.parent / "spare")
    app = create_app(Settings(data_dir, static, rules=rules, **settings))
    return TestClient(app, base_url=base, raise_server_exceptions=False, client=(peer, 50000))


def make_page(folder: Path) -> Path:
    """A static folder with a page and a script."""
    (folder / "src").mkdir(parents=True, exist_ok=True)
    (folder / "index.html").write_text("<!doctype html><title>page</title>")
    (folder / "src" / "main.js").write_text("export {};")
    return folder


def free_port() -> int:
    """A port of its own for a test that stops its server: tests beside it take the first free ones from 8041 on."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        return int(taken.getsockname()[1])
