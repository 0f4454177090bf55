"""The annotated graphs in demos/graphs: they open, their groups are whole, and they are of the model that is shipped."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from tests.server.builders import make_client

from circuit_tracer_cli.demo import places, prompts
from circuit_tracer_cli.export.graph_json import read_graph_json
from circuit_tracer_cli.export.records import GraphFile, cantor_decode
from circuit_tracer_cli.replacement import ReplacementModel

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "demos" / "graphs"
SCHEMA = json.loads((ROOT / "tests" / "export" / "neuronpedia.schema.json").read_text(encoding="utf-8"))
FILES = sorted(path for path in FOLDER.glob("*.json") if path.name != "graph-metadata.json")
EXPECTED = {"dallas", "dallas-plt", "osaka-language", "antonym-en"}

each = pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)


def read(path: Path) -> GraphFile:
    return read_graph_json(path.read_bytes(), path.name)


def test_they_are_there_and_listed() -> None:
    assert {path.stem for path in FILES} == EXPECTED
    listed = json.loads((FOLDER / "graph-metadata.json").read_text(encoding="utf-8"))["graphs"]
    assert {entry["slug"] for entry in listed} == EXPECTED
    assert not list(FOLDER.glob(".*"))


@each
def test_a_graph_is_small_and_as_the_schema_says(path: Path) -> None:
    assert path.stat().st_size < 1_000_000
    jsonschema.validate(json.loads(path.read_text(encoding="utf-8")), SCHEMA)
    assert str(ROOT) not in path.read_text(encoding="utf-8")


@each
def test_groups_labels_and_notes_are_whole(path: Path) -> None:
    file = read(path)
    nodes = {node.node_id: node for node in file.nodes}
    params = file.qParams
    members = [node for group in params.supernodes for node in group[1:]]
    assert len(params.supernodes) >= 2
    assert all(len(group) > 1 for group in params.supernodes)
    assert len(set(members)) == len(members)
    assert set(members) <= set(params.pinnedIds) <= set(nodes)
    codes = {str(nodes[node].feature) for node in members}
    assert {code for code, _ in params.extra["clerps"]} == codes
    assert all(text for _, text in params.extra["clerps"])
    notes = params.extra["notes"]
    assert notes["graph"]
    assert set(notes["nodes"]) <= set(members)
    for node in members:
        layer, feature = cantor_decode(nodes[node].feature or 0)
        assert node == f"{layer}_{feature}_{nodes[node].ctx_idx}"


@pytest.mark.parametrize("kind", ["clt", "plt"])
def test_their_features_are_those_of_the_shipped_model(kind: str) -> None:
    model = ReplacementModel.from_pretrained("demo", f"demo-{kind}", device="cpu")
    seen = 0
    for path in FILES:
        file = read(path)
        if file.metadata.scan != f"demo-{kind}":
            continue
        entry = next(one for one in prompts() if f"<bos>{one['prompt']}" == file.metadata.prompt)
        assert list(model.tokenize(entry["prompt"]).strings) == file.metadata.prompt_tokens
        _, activations = model.get_activations(entry["prompt"])
        for node in file.nodes:
            if node.feature_type == "cross layer transcoder":
                layer, feature = cantor_decode(node.feature or 0)
                assert float(activations[layer, node.ctx_idx, feature]) == pytest.approx(
                    node.activation, rel=1e-3
                )
                seen += 1
        if "place" in entry:
            own = {(one.layer, one.feature) for one in places(kind)[entry["place"]].features}  # type: ignore[index]
            group = next(ids for name, *ids in file.qParams.supernodes if name == entry["place"])
            assert {tuple(map(int, node.split("_")[:2])) for node in group} <= own
    assert seen > 15


@each
def test_a_graph_carries_its_validation(path: Path) -> None:
    report: dict[str, Any] = read(path).metadata.extra["validation"]
    verdicts = {check["name"]: check["verdict"] for check in report["checks"]}
    assert verdicts["direct_effects"] == "pass"
    assert set(verdicts.values()) <= {"pass", "info"}


def test_the_folder_can_be_served(tmp_path: Path) -> None:
    shutil.copytree(FOLDER, tmp_path / "graphs")
    client = make_client(tmp_path / "graphs")
    listing = client.get("/api/graphs").json()
    assert {graph["slug"] for graph in listing["graphs"]} == EXPECTED
    assert listing["errors"] == []
    for slug in EXPECTED:
        assert client.get(f"/api/graphs/{slug}").json() == json.loads((FOLDER / f"{slug}.json").read_bytes())
        assert client.get(f"/api/graphs/{slug}/compact").status_code in (
            200,
            204,
        )  # small files are read as JSON
