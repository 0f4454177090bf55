"""`-t neurons` from the command line: traced, pruned, exported, edited, validated; refused where it can't be."""

from __future__ import annotations

import json
from pathlib import Path

from tests.cli.conftest import PROMPT, Run, Tiny


def test_a_graph_of_neurons_goes_through_every_command(run: Run, tiny: Tiny, here: Path) -> None:
    model = ["-m", tiny.model]
    out = ["-o", "raw.safetensors", "--max-feature-nodes", 20]
    traced = run("attribute", "-t", "neurons:top=8", *model, "-p", PROMPT, *out)
    assert traced.code == 0, traced.stderr
    assert "the 8 of 40 per layer and token that write most can be nodes" in traced.stderr
    pruned = run("prune", "raw.safetensors", "-o", "pruned.safetensors")
    exported = run("export", "raw.safetensors", "--slug", "neurons", "--graph-file-dir", "files")
    assert (pruned.code, exported.code) == (0, 0), exported.stderr
    file = json.loads((here / "files" / "neurons.json").read_text())
    assert file["metadata"]["scan"] == f"neurons:top=8@{tiny.model}"
    found = run("validate", "raw.safetensors", "--budget", 20, "--json")
    assert found.code == 0, found.stderr
    verdicts = {check["name"]: check["verdict"] for check in json.loads(found.text)["checks"]}
    assert verdicts["direct_effects"] == "pass"
    edited = run("intervene", "-t", "neurons", *model, "-p", PROMPT, "--edit", "1/7@2=off", "--json")
    assert edited.code == 0, edited.stderr


def test_neurons_are_refused_in_one_line_where_they_cant_be(run: Run, tiny: Tiny) -> None:
    (Path.cwd() / "text").write_text("1 2 3")
    for arguments, words in (
        (["estimate", "-t", "neurons"], "no model is named"),
        (["estimate", "-t", "neurons:all", "-m", tiny.model], "can't be chosen by 'all'"),
        (["cache", "add", "neurons"], "no files of them"),
        (["features", "build", "--text", "text", "-o", "out", "-t", "neurons", "-m", tiny.model], "can't be built"),
    ):  # fmt: skip
        refused = run(*arguments)
        assert refused.code in (1, 2)
        assert words in refused.stderr
        assert "Traceback" not in refused.stderr
