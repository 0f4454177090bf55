"""A tiny random model with transcoders on disk, and the program run on it: in this process, or in one of its own."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

SOURCE = Path(__file__).resolve().parents[2] / "src"
PROGRAM = (sys.executable, "-m", "circuit_tracer_cli")
PROMPT = "3 41 7 7 19 30"


@dataclass(frozen=True)
class Finished:
    """What a command line left behind."""

    code: int
    stdout: bytes
    stderr: str

    @property
    def text(self) -> str:
        return self.stdout.decode()


@dataclass(frozen=True)
class Tiny:
    """A model folder and a transcoder folder that belong together."""

    model: Path
    transcoders: Path

    @property
    def options(self) -> list[str]:
        return ["-m", str(self.model), "-t", str(self.transcoders)]


Run = Callable[..., Finished]


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Tiny:
    import transformers
    import yaml

    from tests.builders import FAMILIES, number_tokenizer, randomise, transcoders

    root = tmp_path_factory.mktemp("tiny")
    class_name, values = FAMILIES["llama"]
    config = getattr(transformers, class_name)(**values, bos_token_id=0, eos_token_id=1, pad_token_id=None)
    model = transformers.AutoModelForCausalLM.from_config(config, attn_implementation="eager")
    randomise(model, seed=3)
    model.save_pretrained(root / "model")
    number_tokenizer().save_pretrained(root / "model")
    transcoders("plt").to_safetensors(root / "set")
    described = {
        "model_kind": "transcoder_set",
        "model_name": str(root / "model"),
        "feature_input_hook": "mlp.hook_in",
        "feature_output_hook": "hook_mlp_out",
        "scan": "tiny/plt",
    }
    (root / "set" / "config.yaml").write_text(yaml.safe_dump(described))
    return Tiny(root / "model", root / "set")


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty current folder."""
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


@pytest.fixture
def run(here: Path, capfdbinary: pytest.CaptureFixture[bytes], monkeypatch: pytest.MonkeyPatch) -> Run:
    """The program in this process: fast, and all that matters but signals and real pipes is the same."""
    from circuit_tracer_cli.cli import app

    monkeypatch.setattr(app, "install_signal_handlers", lambda: None)

    def call(*arguments: object, stdin: bytes = b"") -> Finished:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin)))
        monkeypatch.setattr(sys, "argv", ["circuit-tracer", *map(str, arguments)])
        capfdbinary.readouterr()
        code = app.run([str(argument) for argument in arguments])
        sys.stdout.flush()
        out, err = capfdbinary.readouterr()
        return Finished(code, out, err.decode())

    return call


@pytest.fixture(scope="session")
def environment() -> dict[str, str]:
    """For a process of its own: this checkout's program, one thread."""
    return {**os.environ, "PYTHONPATH": str(SOURCE), "OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"}


@pytest.fixture
def spawn(here: Path, environment: dict[str, str]) -> Run:
    """The program in a process of its own, to its end."""

    def call(*arguments: object, stdin: bytes = b"") -> Finished:
        command = [*PROGRAM, *map(str, arguments)]
        done = subprocess.run(command, input=stdin, capture_output=True, env=environment, timeout=300)
        return Finished(done.returncode, done.stdout, done.stderr.decode())

    return call


@pytest.fixture(scope="session")
def raw_graph(tiny: Tiny, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The graph of a prompt, as `attribute` writes it."""
    from circuit_tracer_cli.graph.store import save_graph
    from circuit_tracer_cli.pipeline import trace
    from circuit_tracer_cli.prepare import prepare
    from circuit_tracer_cli.request import TraceRequest
    from circuit_tracer_cli.types import SilentProgress

    request = TraceRequest(prompt=PROMPT, transcoder_set=str(tiny.transcoders), max_n_logits=3, batch_size=16)
    path = tmp_path_factory.mktemp("graphs") / "raw.safetensors"
    save_graph(trace(prepare(request), SilentProgress()), path)
    return path
