"""`circuit-tracer cache`, run in this process and once, end to end, in one of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from circuit_tracer_cli.cli import app
from tests.cache.test_cache import SOURCE, publish
from tests.hub.fake_hub import FakeHub
from tests.transcoders.conftest import RandomSet


@pytest.fixture
def served(hub: FakeHub, root: Path, tmp_path: Path) -> FakeHub:
    publish(hub, RandomSet("plt", "topk").write(tmp_path / "set"))
    return hub


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    code = app.run(["cache", *arguments])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def test_from_add_to_remove(served: FakeHub, root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, "add", "user/set")
    assert (code, out) == (0, f"{root}/user/set\n")
    code, out, _ = run(capsys, "list", "--json")
    [entry] = json.loads(out)
    assert entry == {
        "reference": "user/set",
        "folder": f"{root}/user/set",
        "complete": True,
        "bytes": entry["bytes"],
        "commit": "c" * 40,
        "made from": "standard-plt",
        "dtype": "float32",
        "n_layers": 3,
    }
    assert "user/set  whole  3, float32" in run(capsys, "list")[1]
    code, out, _ = run(capsys, "info", "user/set", "--verify")
    assert code == 0
    assert "damaged    none" in out
    code, _, err = run(capsys, "remove", "user/set")
    assert code == 0
    assert err.startswith("removed user/set, ")
    assert run(capsys, "list") == (0, "", f"{root} contains no sets; circuit-tracer cache add SET adds one\n")


def test_errors_are_one_line_and_a_hint(
    served: FakeHub, root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, err = run(capsys, "add", "user/none")
    assert (code, out) == (1, "")
    assert err.splitlines() == [
        "error: there is no repository user/none on the hub, or it is private",
        "hint: check the spelling; for a private one set HF_TOKEN, or run `hf auth login`",
    ]
    assert not list(root.rglob("*.safetensors"))
    for command in (("info", "user/set"), ("remove", "user/set")):
        code, _, err = run(capsys, *command)
        assert code == 1
        assert err == "error: user/set isn't in the cache\nhint: circuit-tracer cache add user/set\n"
    assert run(capsys, "add", "user/set", "--dtype", "int8")[0] == 2
    assert run(capsys, "add", "gema")[2].endswith("hint: did you mean gemma?\n")


def test_a_changed_file_is_named(served: FakeHub, root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(capsys, "add", "user/set", "--dtype", "bf16")
    path = root / "user" / "set" / "layer_1.safetensors"
    path.write_bytes(path.read_bytes()[:-1] + b"\xff")
    code, out, err = run(capsys, "info", "user/set", "--verify", "--json")
    assert code == 1
    assert json.loads(out)["damaged"] == ["layer_1.safetensors"]
    assert "layer_1.safetensors changed since the set was written" in err


def test_clear_wants_a_yes(served: FakeHub, root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(capsys, "clear")[2] == f"{root} contains nothing to remove\n"
    run(capsys, "add", "user/set")
    code, _, err = run(capsys, "clear")
    assert code == 2
    assert "hint: add --yes" in err
    assert (root / "user" / "set" / "config.yaml").exists()
    assert run(capsys, "clear", "--yes")[0] == 0
    assert not (root / "user").exists()


def test_known_sets_and_the_folder(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, "list", "--known", "--json")
    known = {entry["reference"]: entry for entry in json.loads(out)}
    assert code == 0
    assert known["mntss/transcoder-Llama-3.2-1B"]["alias"] == "llama"
    table = run(capsys, "list", "--known")[1]
    assert max(map(len, table.splitlines())) <= 80
    words = table.split()
    assert all(reference in words for reference in known), "a reference must stay whole, to be copied"
    assert run(capsys, "dir")[1] == f"{root}\n"
    assert run(capsys, "dir", "--cache-dir", "/elsewhere")[1] == "/elsewhere\n"


@pytest.mark.long
def test_a_process_of_its_own(served: FakeHub, root: Path, tmp_path: Path) -> None:
    """The way a user goes: the client finds the hub, the cache and the switches in the environment alone."""
    environment = {
        **os.environ,
        "PYTHONPATH": str(SOURCE),
        "HF_ENDPOINT": served.url,
        "HF_HOME": str(tmp_path / "home"),
        "OMP_NUM_THREADS": "1",
    }

    def program(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "circuit_tracer_cli", "cache", *arguments]
        return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)

    first = program("add", "user/set", "--offline")
    assert first.returncode == 1
    assert "user/set isn't fully downloaded, and network access is off" in first.stderr
    assert served.requests == []
    second = program("add", "user/set", "--keep-downloads")
    assert (second.returncode, second.stdout) == (0, f"{root}/user/set\n")
    assert "Traceback" not in second.stderr
    served.requests.clear()
    assert program("add", "user/set", "--offline").returncode == 0
    assert served.requests == []
