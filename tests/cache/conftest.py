from __future__ import annotations

from pathlib import Path

import pytest

from tests.hub.conftest import hub, hub_cache

__all__ = ["hub", "hub_cache", "root"]


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache of converted sets."""
    folder = tmp_path / "cache"
    monkeypatch.setenv("CIRCUIT_TRACER_CACHE_DIR", str(folder))
    return folder
