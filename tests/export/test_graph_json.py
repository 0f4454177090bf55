from __future__ import annotations

import dataclasses
import gzip
import io
import json
import math
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from circuit_tracer_cli.errors import BadGraphFile
from circuit_tracer_cli.export.graph_json import (
    encode_json,
    proper_json,
    read_graph_json,
    read_view,
    write_graph_json,
)
from circuit_tracer_cli.export.records import GENERATOR, GraphFile, Link, Metadata, Node, QParams
from tests.graph.builders import golden_names

TEXT = st.text(max_size=12)
NUMBERS = st.floats(-10, 10, allow_nan=False)


@st.composite
def files(draw: st.DrawFn) -> GraphFile:
    features = draw(st.sets(st.tuples(st.integers(0, 3), st.integers(0, 3), st.integers(0, 5)), max_size=6))
    errors = draw(st.sets(st.tuples(st.integers(0, 3), st.integers(0, 3)), max_size=4))
    nodes = [Node.feature_node(*place, draw(NUMBERS), draw(NUMBERS)) for place in sorted(features)]
    nodes += [Node.error_node(*place, draw(st.none() | NUMBERS)) for place in sorted(errors)]
    nodes.append(Node.token_node(0, draw(st.integers(0, 99))))
    nodes.append(Node.logit_node("5_7_3", 3, 7, draw(TEXT), 0.5, is_first=True, n_layers=4))
    ids = st.sampled_from([node.node_id for node in nodes])
    metadata = Metadata(
        slug="slug",
        scan=draw(TEXT),
        prompt_tokens=draw(st.lists(TEXT, max_size=3)),
        prompt=draw(TEXT),
        node_threshold=draw(st.none() | st.floats(0, 1)),
        info={"description": draw(TEXT)},
        extra={"title_prefix": draw(TEXT)},
    )
    q_params = QParams(
        pinnedIds=draw(st.lists(ids, max_size=3)),
        supernodes=[[draw(TEXT), draw(ids)] for _ in range(draw(st.integers(0, 2)))],
        clickedId=draw(ids),
        extra={"pruningThreshold": 0.5},
    )
    links = draw(st.lists(st.builds(Link, ids, ids, NUMBERS), max_size=6))
    return GraphFile(metadata, q_params, nodes, links)


def written(file: GraphFile) -> bytes:
    stream = io.BytesIO()
    write_graph_json(stream, file.metadata, file.qParams, file.nodes, file.links)
    return stream.getvalue()


@settings(max_examples=30)
@given(files())
def test_round_trip(file: GraphFile) -> None:
    content = written(file)
    assert read_graph_json(content) == file
    assert b"\n" not in content
    assert json.loads(content)["metadata"]["slug"] == "slug"


class CountingStream(io.BytesIO):
    """Knows how much was read."""

    def __init__(self, content: bytes) -> None:
        super().__init__(content)
        self.asked: list[int | None] = []

    def read(self, size: int | None = -1) -> bytes:
        self.asked.append(size)
        return super().read(size)


@given(files())
def test_view_of_our_file_needs_no_links(file: GraphFile) -> None:
    ours = dataclasses.replace(
        file, metadata=dataclasses.replace(file.metadata, info={"generator": {"name": GENERATOR}})
    )
    stream = CountingStream(written(ours).split(b'"nodes":')[0])
    assert read_view(stream) == (ours.metadata, ours.qParams)
    assert len(stream.asked) == 1


@given(files())
def test_view_of_another_programs_file(file: GraphFile) -> None:
    assert read_view(io.BytesIO(written(file))) == (file.metadata, file.qParams)
    indented = json.dumps(old_file(qParams={"pinnedIds": "0_6_3"}), indent=2).encode()
    assert read_view(io.BytesIO(indented))[1].pinnedIds == ["6_-1_3"]


@pytest.mark.parametrize(
    "content", [b"", b"[1]", b'{"metadata": {', b'{"metadata": [], "qParams": 3}', b"{1: 2}"]
)
def test_view_of_what_is_no_graph_file(content: bytes) -> None:
    with pytest.raises(BadGraphFile):
        read_view(io.BytesIO(content))


def test_many_links_are_written_in_batches() -> None:
    links = [Link("a", "b", float(i)) for i in range(25_001)]
    stream = io.BytesIO()
    metadata = Metadata(slug="s", scan="s", prompt_tokens=[], prompt="")
    write_graph_json(stream, metadata, QParams(), [], iter(links))
    assert [link["weight"] for link in json.loads(stream.getvalue())["links"]] == [
        link.weight for link in links
    ]


def test_half_a_surrogate_pair_is_valid_json() -> None:
    content = encode_json({"text": 'a\ud83d"\n'})
    assert json.loads(content.decode("utf-8")) == {"text": 'a\ud83d"\n'}


def test_numbers_that_json_cannot_hold() -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        encode_json(float("nan"))


def old_file(**changes: Any) -> dict[str, Any]:
    """A file as the reference wrote it: error ids that a feature may have as well."""
    feature = {"feature_type": "cross layer transcoder", "layer": "0", "feature": 20, "jsNodeId": "0_5-0"}
    error = {"feature_type": "mlp reconstruction error", "layer": "5", "feature": -1, "jsNodeId": "5_3-0"}
    other = {"feature_type": "mlp reconstruction error", "layer": "6", "feature": -1, "jsNodeId": "6_3-0"}
    logit = {"feature_type": "logit", "layer": "8", "feature": 1, "jsNodeId": "L_1-3"}
    nodes = [
        {"node_id": "0_5_3", "ctx_idx": 3, "clerp": "", **feature},
        {"node_id": "0_5_3", "ctx_idx": 3, "clerp": "", **error},
        {"node_id": "0_6_3", "ctx_idx": 3, "clerp": "", **other},
        {"node_id": "8_1_3", "ctx_idx": 3, "clerp": "", **logit},
        {"node_id": "8_2_3", "ctx_idx": 3, "clerp": "", **logit},
    ]
    links = [
        {"source": "0_5_3", "target": "8_1_3", "weight": 1.0},
        {"source": "0_5_3", "target": "8_1_3", "weight": 2.0},
        {"source": "0_6_3", "target": "8_1_3", "weight": 3.0},
        {"source": "0_5_3", "target": "8_2_3", "weight": 4.0},
    ]
    metadata = {"slug": "s", "scan": "gemma-2-2b", "prompt_tokens": ["a"], "prompt": "a"}
    return {"metadata": metadata, "qParams": {}, "nodes": nodes, "links": links, **changes}


def test_old_error_ids_become_unique() -> None:
    file = read_graph_json(json.dumps(old_file()))
    assert [node.node_id for node in file.nodes] == ["0_5_3", "5_-1_3", "6_-1_3", "8_1_3", "8_2_3"]
    assert [(link.source, link.weight) for link in file.links] == [
        ("0_5_3", 1.0), ("5_-1_3", 2.0), ("6_-1_3", 3.0), ("0_5_3", 4.0)
    ]  # fmt: skip
    assert file.metadata.schema_version is None
    assert file.nodes[1].jsNodeId == "5_-1-3"


@pytest.mark.parametrize(
    ("given_params", "pinned", "supernodes"),
    [
        ({}, [], []),
        ({"pinnedIds": None, "supernodes": None, "linkType": None}, [], []),
        ({"pinnedIds": "", "supernodes": ""}, [], []),
        (
            {"pinnedIds": "0_6_3,8_1_3", "supernodes": '[["a", "0_6_3"], []]'},
            ["6_-1_3", "8_1_3"],
            [["a", "6_-1_3"]],
        ),
        ({"pinnedIds": ["0_5_3"], "supernodes": [["b", "0_5_3"]]}, ["0_5_3"], [["b", "0_5_3"]]),
    ],
)
def test_all_forms_of_saved_views(
    given_params: dict[str, Any], pinned: list[str], supernodes: list[list[str]]
) -> None:
    file = read_graph_json(json.dumps(old_file(qParams=given_params)))
    assert file.qParams.pinnedIds == pinned
    assert file.qParams.supernodes == supernodes
    assert file.qParams.linkType == "both"


def test_other_entries_of_saved_views() -> None:
    params = {
        "clerps": '[["12", "label"]]',
        "hiddenIds": "a,b",
        "pruningThreshold": "0.5",
        "clickedId": "0_6_3",
    }
    q_params = read_graph_json(json.dumps(old_file(qParams=params))).qParams
    assert q_params.extra == {"clerps": [["12", "label"]], "hiddenIds": ["a", "b"], "pruningThreshold": "0.5"}
    assert q_params.clickedId == "6_-1_3"


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"[]",
        b"{}",
        b"3",
        b"[" * 100_000,
        b"\xff\xfe",
        json.dumps(old_file(nodes={})).encode(),
        json.dumps(old_file(nodes=[1])).encode(),
        json.dumps(old_file(nodes=[{"node_id": "a"}])).encode(),
        json.dumps(old_file(links=[{"source": "a", "target": "b"}])).encode(),
        json.dumps(old_file(links=[{"source": "a", "target": "b", "weight": "x"}])).encode(),
        json.dumps(old_file(metadata={"slug": "s"})).encode(),
        json.dumps(old_file(qParams={"supernodes": "[["})).encode(),
        json.dumps(old_file(qParams={"supernodes": {"a": 1}})).encode(),
        json.dumps(old_file(qParams=[1])).encode(),
    ],
)
def test_what_is_no_graph_file(content: bytes) -> None:
    with pytest.raises(BadGraphFile) as caught:
        read_graph_json(content, "it")
    assert caught.value.message.startswith("it is")
    assert "\n" not in caught.value.message


@settings(max_examples=30)
@given(files(), st.data())
def test_truncated_files(file: GraphFile, data: st.DataObject) -> None:
    content = written(file)
    with pytest.raises(BadGraphFile):
        read_graph_json(content[: data.draw(st.integers(0, len(content) - 1))])


@pytest.mark.parametrize("name", golden_names())
def test_reference_files_have_unique_ids_once_read(golden: Path, name: str) -> None:
    plain, packed = (golden / "cases" / name / f"graph.json{suffix}" for suffix in ("", ".gz"))
    if not plain.exists() and not packed.exists():
        pytest.skip("this case has no graph.json")
    file = read_graph_json(plain.read_bytes() if plain.exists() else gzip.decompress(packed.read_bytes()))
    ids = {node.node_id for node in file.nodes}
    assert len(ids) == len(file.nodes)
    assert {end for link in file.links for end in (link.source, link.target)} <= ids


def test_links_without_a_finite_weight_are_counted() -> None:
    weights = [0.5, math.nan, math.inf, None, -1]
    links = [{"source": "E_3_1", "target": "0_6_3", "weight": weight} for weight in weights]
    file = read_graph_json(json.dumps(old_file(links=links)))
    assert [link.weight for link in file.links] == [0.5, -1]
    assert file.left_out == 3


@pytest.mark.parametrize(
    "text", ['{"links": [], "metadata": {"prompt": "NaN, Infinity"}}', '{"links": [NaN', "[NaN]", "NaN"]
)
def test_what_needs_no_change_or_can_not_be_read_comes_back_as_it_is(text: str) -> None:
    assert proper_json(text.encode()) == (text.encode(), 0)
