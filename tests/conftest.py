"""Before anything is imported: no network, no home folder, no writes outside a temporary folder, the same numbers every time."""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

_SANDBOX = tempfile.mkdtemp(prefix="circuit-tracer-tests-")
atexit.register(shutil.rmtree, _SANDBOX, ignore_errors=True)
os.environ.update(
    HOME=_SANDBOX,
    XDG_DATA_HOME=f"{_SANDBOX}/data",
    XDG_CACHE_HOME=f"{_SANDBOX}/cache",
    HF_HOME=f"{_SANDBOX}/huggingface",
    HF_HUB_OFFLINE="1",
    WANDB_MODE="disabled",
    TOKENIZERS_PARALLELISM="false",
    TRANSFORMERS_VERBOSITY="error",
    COLUMNS="80",
)
# Sums on several threads have other last bits, and threads of several test processes would wait for each other.
os.environ["OMP_NUM_THREADS"] = "1"
for _name in ("CIRCUIT_TRACER_DEBUG", "FORCE_COLOR", "PY_COLORS"):
    os.environ.pop(_name, None)

import hypothesis  # noqa: E402
import pytest  # noqa: E402

hypothesis.settings.register_profile("repeatable", derandomize=True, deadline=None, database=None)
hypothesis.settings.load_profile("repeatable")

_GOLDEN = Path(__file__).resolve().parents[1] / ".." / "shared" / "golden"


@pytest.fixture(scope="session")
def golden() -> Path:
    """The reference's own results; a test that needs them is skipped where they aren't there."""
    if not _GOLDEN.is_dir():
        pytest.skip("the golden data isn't beside this checkout")
    return _GOLDEN.resolve()


@pytest.fixture(autouse=True)
def _json_fits_its_schema(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever a command prints with --json in this process, in any test, has to be as its schema says."""
    from circuit_tracer_cli.cli.output import Output

    real = Output.data

    def data(self: Output, record: Any) -> None:
        from typer._click.globals import get_current_context

        from tests.cli.test_schemas import problems

        context = get_current_context(silent=True)
        command = "" if context is None else context.command_path.partition(" ")[2]
        found = problems(command, record)
        assert not found, f"{command} --json isn't as its schema says: {found}"
        real(self, record)

    monkeypatch.setattr(Output, "data", data)
