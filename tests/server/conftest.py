"""Folders and clients that the server's tests share."""

from __future__ import annotations

from pathlib import Path

import pytest
from starlette.testclient import TestClient

from .builders import make_client, write_graph


@pytest.fixture
def data_dir(tmp_path: Path) -> Path:
    """A folder with one graph, next to a secret that nobody may read."""
    folder = tmp_path / "graphs"
    folder.mkdir()
    write_graph(folder, "demo")
    (tmp_path / "secret.json").write_text('{"secret": true}')
    return folder


@pytest.fixture
def client(data_dir: Path) -> TestClient:
    return make_client(data_dir)
