"""Bad input: one line, the right exit code, nothing written, and nothing loaded where the command line already tells."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import socket
import zipfile
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

from tests.cli.conftest import PROMPT, Finished, Run, Tiny

OUT = ["-o", "graph.safetensors"]

WRONG_USAGE = {
    "no command": [],
    "unknown command": ["atribute"],
    "unknown option": ["attribute", "-p", "3", *OUT, "--nosuch"],
    "no prompt": ["attribute", *OUT],
    "empty prompt": ["attribute", "-p", "", *OUT],
    "no output": ["attribute", "-p", "3"],
    "unknown suffix": ["attribute", "-p", "3", "-o", "graph.pickle"],
    "no suffix": ["attribute", "-p", "3", "-o", "graph"],
    "slug with a slash": ["attribute", "-p", "3", "--slug", "../x"],
    "slug of the list": ["attribute", "-p", "3", "--slug", "graph-metadata"],
    "empty slug": ["attribute", "-p", "3", "--slug", ""],
    "system without chat": ["attribute", "-p", "3", *OUT, "--system", "x"],
    "prefill without chat": ["attribute", "-p", "3", *OUT, "--prefill", "x"],
    "unknown dtype": ["attribute", "-p", "3", *OUT, "--dtype", "int8"],
    "unknown backend": ["attribute", "-p", "3", *OUT, "--backend", "jax"],
    "unknown offload": ["attribute", "-p", "3", *OUT, "--offload", "tape"],
    "unknown device": ["attribute", "-p", "3", *OUT, "--device", "gpu"],
    "a device that isn't here": ["attribute", "-p", "3", *OUT, "--device", "cuda:99"],
    "a device that isn't here, for intervene": [
        "intervene",
        "-p",
        "3",
        "-e",
        "0/1@1=off",
        "--device",
        "cuda:99",
    ],
    "a layer on two devices": ["attribute", "-p", "3", *OUT, "--device-map", "0-1:cpu,1-3:cpu"],
    "a layer on no device": ["attribute", "-p", "3", *OUT, "--device-map", "0-3:cpu,6-7:cpu"],
    "a path that is none": ["attribute", "-p", "3", "--server", "--root-path", "a b"],
    "an origin that is none": ["attribute", "-p", "3", "--server", "--allow-origin", "xyz"],
    "unknown format": ["export", "graph.safetensors", "--format", "docx"],
    "folder named twice": ["serve", "a", "--graph-file-dir", "b"],
    "unknown example": ["demo", "--prompt-id", "no-such"],
}
BAD_NUMBERS = [
    *[
        ("attribute", name, value)
        for name in ("--max-n-logits", "--batch-size", "--max-feature-nodes", "--update-interval")
        for value in ("nan", "-1", "0", "1.5", "x")
        if (name, value) != ("--max-feature-nodes", "0")
    ],
    *[("attribute", "--desired-logit-prob", value) for value in ("nan", "inf", "-0.1", "0", "1.1", "x")],
    *[
        (command, name, value)
        for command in ("attribute", "prune", "export")
        for name in ("--node-threshold", "--edge-threshold")
        for value in ("nan", "inf", "-0.1", "1.1", "x")
    ],
    *[
        (command, "--port", value)
        for command in ("attribute", "serve", "demo")
        for value in ("nan", "-1", "65536")
    ],
    ("show", "--nodes", "-1"),
    ("show", "--paths", "nan"),
]


def assert_refused(done: Finished, code: int, here: Path, *words: str) -> None:
    """One `error:` line, at most one `hint:` line, the exit code, and an untouched folder."""
    lines = done.stderr.splitlines()
    errors = [line for line in lines if line.startswith("error: ")]
    assert done.code == code, done.stderr
    assert len(errors) == 1, done.stderr
    assert lines[lines.index(errors[0]) + 1 :] == [line for line in lines if line.startswith("hint: ")][:1]
    assert done.stdout == b""
    assert list(here.iterdir()) == []
    for word in words:
        assert word in errors[0]


@pytest.mark.parametrize(
    ("words", "code", "part"),
    [
        (["--device", "cpu", "--device-map", "0-2:cpu"], 2, "--device and --device-map"),
        (["--device-map", "0-2:tpu"], 2, "unknown device 'tpu'"),
        (["--device-map", "0-1:cpu"], 1, "lacks layer 2"),
        (["--device-map", "0-9:cpu"], 1, "names layer 3, but the model has layers 0 to 2"),
    ],
)
@pytest.mark.parametrize("command", [["attribute", "-p", "3", *OUT], ["serve", "."]])
def test_device_maps_that_nothing_can_follow(
    run: Run, tiny: Tiny, here: Path, command: list[str], words: list[str], code: int, part: str
) -> None:
    done = run(*command, "-t", tiny.transcoders, *words)
    assert_refused(done, code, here, part)


@pytest.fixture
def no_heavy_import(monkeypatch: pytest.MonkeyPatch) -> None:
    """Asking the pipeline for anything fails the test."""

    def loaded(*args: object) -> None:
        raise AssertionError("the pipeline was asked")

    monkeypatch.setattr("circuit_tracer_cli.pipeline.trace", loaded)


@pytest.mark.usefixtures("no_heavy_import")
@pytest.mark.parametrize("arguments", WRONG_USAGE.values(), ids=WRONG_USAGE.keys())
def test_wrong_usage(run: Run, here: Path, arguments: list[str]) -> None:
    assert_refused(run(*arguments), 2, here)


@pytest.mark.usefixtures("no_heavy_import")
@pytest.mark.parametrize(("command", "option", "value"), BAD_NUMBERS)
def test_bad_numbers(run: Run, here: Path, command: str, option: str, value: str) -> None:
    rest = ["-p", "3", *OUT] if command == "attribute" else []
    assert_refused(run(command, *rest, option, value), 2, here, option)


@pytest.mark.usefixtures("no_heavy_import")
@pytest.mark.parametrize(
    "destination",
    [
        ["-o", "missing/graph.pt"],
        ["-o", "{file}/graph.pt"],
        ["--slug", "x", "--graph-file-dir", "{file}/folder"],
    ],
)
def test_an_output_that_cannot_be_written(
    run: Run, here: Path, tmp_path: Path, destination: list[str]
) -> None:
    (tmp_path / "file").touch()
    filled = [word.replace("{file}", str(tmp_path / "file")) for word in destination]
    assert_refused(run("attribute", "-p", "3", *filled), 1, here)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_an_output_folder_without_permission(run: Run, here: Path, tmp_path: Path) -> None:
    locked = tmp_path / "locked"
    locked.mkdir(mode=0o500)
    assert_refused(run("attribute", "-p", "3", "-o", locked / "graph.pt"), 1, here, "locked")


@pytest.mark.usefixtures("no_heavy_import")
def test_a_prompt_that_is_not_text(run: Run, here: Path) -> None:
    assert_refused(run("attribute", "-p", "-", *OUT, stdin=b"caf\xe9"), 2, here, "UTF-8")
    assert_refused(run("attribute", "-p", "-", *OUT, stdin=b"\n"), 2, here, "empty")
    assert_refused(run("attribute", "-p", "caf\udce9", *OUT), 2, here, "UTF-8")


@pytest.mark.usefixtures("no_heavy_import")
def test_a_port_in_use(run: Run, here: Path, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        folder = tmp_path / "graphs"
        options = ["--server", "--graph-file-dir", folder, "--port", port]
        folder.mkdir()
        assert_refused(run("attribute", "-p", "3", *options), 1, here, str(port), "in use")
        assert_refused(run("serve", folder, "--port", port), 1, here, str(port), "in use")


BAD_TRACES = {
    "blank prompt": (["-p", " "], 2, "empty"),
    "prompt longer than the context": (["-p", "7 " * 65], 1, "64"),
    "several tokens as a target": (["-p", PROMPT, "--target", "3 4"], 1, "3 4"),
    "unknown id as a target": (["-p", PROMPT, "--target", "id:48"], 1, "48"),
    "a target outside the prompt": (
        ["-p", PROMPT, "--target", "token:id:4@99"],
        1,
        "position 99, outside the prompt",
    ),
    "no completion": (["-p", PROMPT, "--completion", ""], 2, "completion is empty"),
    "a completion and a target": (
        ["-p", PROMPT, "--completion", " 4", "--target", "4"],
        2,
        "both say what to explain",
    ),
    "more logits than tokens": (["-p", PROMPT, "--max-n-logits", "49"], 1, "48"),
    "a model of the hub without its transcoders": (
        ["-p", PROMPT, "-m", "google/gemma-2-2b", "-t", "demo"],
        1,
        "gemma",
    ),
    "unknown model folder": (["-p", PROMPT, "-m", "./no-model"], 1, "no-model"),
    "unknown transcoder folder": (["-p", PROMPT, "-t", "./no-set"], 1, "no-set"),
}


@pytest.mark.parametrize(("arguments", "code", "word"), BAD_TRACES.values(), ids=BAD_TRACES.keys())
def test_a_trace_that_cannot_be_made(
    run: Run, here: Path, tiny: Tiny, arguments: list[str], code: int, word: str
) -> None:
    assert_refused(run("attribute", *tiny.options, *arguments, *OUT), code, here, word)


@pytest.fixture
def broken(tiny: Tiny, tmp_path: Path) -> Tiny:
    """A copy of both folders, to be damaged."""
    shutil.copytree(tiny.model, tmp_path / "model")
    shutil.copytree(tiny.transcoders, tmp_path / "set")
    return Tiny(tmp_path / "model", tmp_path / "set")


def refused(run: Run, here: Path, broken: Tiny, *words: str) -> None:
    assert_refused(run("attribute", *broken.options, "-p", PROMPT, *OUT), 1, here, *words)


def test_a_missing_layer_file_is_said(run: Run, broken: Tiny) -> None:
    (broken.transcoders / "layer_1.safetensors").unlink()
    done = run("attribute", *broken.options, "-p", PROMPT, *OUT)
    assert done.code == 0, done.stderr
    assert "for 2 of 3 layers" in done.stderr
    assert "is an error node" in done.stderr


def test_a_truncated_layer_file(run: Run, here: Path, broken: Tiny) -> None:
    path = broken.transcoders / "layer_1.safetensors"
    path.write_bytes(path.read_bytes()[:-100])
    refused(run, here, broken, "layer_1")


def test_an_unknown_hook_name(run: Run, here: Path, broken: Tiny) -> None:
    config = broken.transcoders / "config.yaml"
    config.write_text(config.read_text().replace("mlp.hook_in", "mlp.hook_nowhere"))
    refused(run, here, broken, "hook_nowhere")


def test_a_model_of_another_shape(run: Run, here: Path, broken: Tiny) -> None:
    surplus = broken.transcoders / "layer_3.safetensors"
    surplus.write_bytes((broken.transcoders / "layer_2.safetensors").read_bytes())
    refused(run, here, broken, "3", "4")


def test_a_model_of_an_unknown_kind(run: Run, here: Path, broken: Tiny) -> None:
    config = json.loads((broken.model / "config.json").read_text())
    config.update(architectures=["NoSuchForCausalLM"], model_type="nosuch")
    (broken.model / "config.json").write_text(json.dumps(config))
    refused(run, here, broken)


def test_no_feature_is_active(run: Run, here: Path, broken: Tiny) -> None:
    for path in broken.transcoders.glob("*.safetensors"):
        tensors = load_file(path)
        tensors["b_enc"] = tensors["b_enc"] - 1e6
        save_file(tensors, path)
    refused(run, here, broken, "active")


class Bomb:
    """Its unpickling leaves a trace."""

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, ("exploded",)


def hostile_files(tmp_path: Path, raw: bytes) -> dict[str, Path]:
    """Graph files that aren't."""
    files = {
        name: tmp_path / name for name in ("empty.pt", "text.pt", "pickle.pt", "zip.pt", "short.safetensors")
    }
    files["empty.pt"].touch()
    files["text.pt"].write_text("a graph")
    files["pickle.pt"].write_bytes(pickle.dumps(Bomb()))
    with zipfile.ZipFile(files["zip.pt"], "w") as archive:
        archive.writestr("archive/data.pkl", pickle.dumps(Bomb(), protocol=2))
        archive.writestr("archive/version", "3\n")
        archive.writestr("archive/byteorder", "little")
    files["short.safetensors"].write_bytes(raw[: len(raw) // 2])
    return files


@pytest.mark.parametrize("command", ["show", "prune", "export"])
@pytest.mark.parametrize("name", ["empty.pt", "text.pt", "pickle.pt", "zip.pt", "short.safetensors"])
def test_a_bad_graph_file(
    run: Run, here: Path, tmp_path: Path, raw_graph: Path, command: str, name: str
) -> None:
    path = hostile_files(tmp_path, raw_graph.read_bytes())[name]
    assert_refused(run(command, path), 1, here, name)
    assert_refused(run(command, stdin=path.read_bytes()), 1, here)


@pytest.mark.parametrize("command", ["show", "prune", "export"])
def test_no_such_graph_file(run: Run, here: Path, command: str) -> None:
    assert_refused(run(command, "no.safetensors"), 1, here, "no.safetensors")


def test_a_mistyped_example_is_guessed(run: Run, here: Path) -> None:
    done = run("demo", "--prompt-id", "dalas")
    assert_refused(done, 2, here, "'dalas'")
    assert "did you mean dallas?" in done.stderr


def test_a_folder_is_no_graph_file(run: Run, here: Path, tmp_path: Path, raw_graph: Path) -> None:
    done = run("show", raw_graph.parent)
    assert_refused(done, 1, here, "is a folder")
    assert f"such as {raw_graph}" in done.stderr
    (tmp_path / "empty").mkdir()
    assert "attribute -o" in run("show", tmp_path / "empty").stderr


def test_the_other_kind_of_graph_file_is_named(run: Run, here: Path, raw_graph: Path, tmp_path: Path) -> None:
    run("export", raw_graph, "--slug", "x", "--graph-file-dir", tmp_path / "files", "-q")
    assert_refused(
        run("show", tmp_path / "files" / "x.json"), 1, here, "is a viewer file (JSON), not a raw graph"
    )
    edits = ["--graph", raw_graph, "--supernode", "Texas"]
    assert_refused(run("intervene", *edits), 1, here, "is a raw graph")


def test_other_thresholds_on_a_pruned_graph(run: Run, here: Path, raw_graph: Path, tmp_path: Path) -> None:
    pruned = tmp_path / "pruned.safetensors"
    assert run("prune", raw_graph, "-o", pruned).code == 0
    for command in ("prune", "export"):
        assert_refused(run(command, pruned, "--node-threshold", "0.5"), 1, here, "already pruned")


def test_serve_without_a_folder(run: Run, here: Path) -> None:
    assert_refused(run("serve", "no-folder", "--port", "0"), 1, here, "no-folder")


def test_serve_without_the_features(run: Run, here: Path, tmp_path: Path) -> None:
    assert_refused(
        run("serve", tmp_path, "--port", "0", "--features-dir", "no-features"), 1, here, "no-features"
    )
