"""`features build` and `features info` through the command line."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from circuit_tracer_cli.cli.app import run
from circuit_tracer_cli.features.packed import FeatureFiles
from tests.features.conftest import GOLDEN, make_texts

SOURCE = Path(__file__).resolve().parents[2] / "src"
needs_golden = pytest.mark.skipif(not GOLDEN.exists(), reason="the golden data isn't beside this checkout")
MODEL = ["-t", str(GOLDEN / "transcoders" / "llama-plt-relu"), "-m", str(GOLDEN / "models" / "llama")]
SMALL = ["--context", "4", "--examples", "1", "--quantiles", "0", "--layers", "3:4"]


@pytest.fixture
def text(tmp_path: Path) -> Path:
    path = tmp_path / "text.txt"
    path.write_text("\n".join(make_texts(8)))
    return path


@needs_golden
def test_usual_drivers_of_a_graph_stand_in_its_features(
    text: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, graph = tmp_path / "features", str(tmp_path / "g.safetensors")
    prompt = ["-p", "the quick brown fox", "--max-feature-nodes", "40", "-q", "-o", graph]
    assert run(["attribute", *MODEL, *prompt]) == 0
    words = ["features", "build", *MODEL, "--text", str(text), "-o", str(out), "--drivers-of", graph]
    assert run([*words, "--context", "4", "--examples", "1", "--quantiles", "0"]) == 0
    assert "what usually drives" in capsys.readouterr().err
    files = FeatureFiles(out)
    assert files.drivers()
    for name, drivers in files.drivers().items():
        layer, number = map(int, name.split("/"))
        assert files.feature(layer, number)["usual_drivers"] == drivers
        sizes = [abs(weight) for _, _, weight, _ in drivers]
        assert sizes == sorted(sizes, reverse=True)
        assert all(below < layer and 0 < together <= 1 for below, _, _, together in drivers)
    assert run([*words[:-4], "-o", str(out), "--drivers-of", graph, "--text", "-"]) == 2
    assert "reads the text twice" in capsys.readouterr().err


@needs_golden
def test_build_and_info(text: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "features"
    code = run(
        [
            "features",
            "build",
            *MODEL,
            "--text",
            str(text),
            "--output_dir",
            str(out),
            "--max-documents",
            "5",
            *SMALL,
        ]
    )
    printed = capsys.readouterr()
    assert code == 0, printed.err
    assert "5 documents" in printed.out
    assert f"next: circuit-tracer serve --features-dir {out}" in printed.err
    assert FeatureFiles(out).feature(3, 0)["transcoder_id"].endswith("/3")
    assert run(["features", "info", str(out)]) == 0
    assert "256" in capsys.readouterr().out
    assert run(["features", "info", str(out), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["features"] == {"3": 256}


@needs_golden
@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["--text", "missing.txt"], 1, "no text at missing.txt"),
        (["--text", "{text}", "--layers", "3"], 2, "0:8"),
        (["--text", "{text}", "--layers", "3:3"], 1, "layers 3:3 don't exist"),
        (["--text", "{text}", "--context", "1"], 2, "context"),
        (["--text", "{text}", "--max-documents", "0"], 2, "max-documents"),
        (["--text", "{text}", "-t", "nowhere"], 1, "nowhere"),
        (["--text", "{text}", "--output-dir", "{text}"], 1, "is a file"),
        (["--text", "{text}", "--examples", "1000000000"], 1, "collecting examples of these layers takes"),
        ([], 2, "--text"),
    ],
)
def test_bad_input_is_one_line(
    text: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    code: int,
    message: str,
) -> None:
    typed = [argument.format(text=text) for argument in arguments]
    out = tmp_path / "features"
    assert run(["features", "build", *MODEL, "--output-dir", str(out), *typed]) == code
    errors = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1
    assert message in errors[0]
    assert not out.exists()


def test_info_on_something_else(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["features", "info", str(tmp_path)]) == 1
    assert "no feature examples" in capsys.readouterr().err


@needs_golden
@pytest.mark.long
def test_a_killed_build_leaves_no_final_file_and_goes_on(tmp_path: Path) -> None:
    out = tmp_path / "features"
    command = [sys.executable, "-m", "circuit_tracer_cli", "features", "build", *MODEL, *SMALL]
    command += ["--text", "-", "--output-dir", str(out)]
    environment = {**os.environ, "PYTHONPATH": str(SOURCE), "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment
    )
    assert process.stdin is not None
    process.stdin.write("\n".join(make_texts(600)).encode())
    process.stdin.flush()  # the pipe stays open: the build waits for more
    deadline = time.monotonic() + 120
    while not (out / ".build" / "progress.json").exists() and time.monotonic() < deadline:
        time.sleep(0.1)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    assert [path.name for path in out.iterdir()] == [".build"]
    done = subprocess.run(
        command, input="\n".join(make_texts(600)).encode(), capture_output=True, env=environment, check=False
    )
    assert done.returncode == 0, done.stderr
    assert b"continuing an interrupted build after" in done.stderr
    assert FeatureFiles(out).about()["documents"] == 600
