"""What may be saved, in the forms of this page and of the reference's."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.testclient import TestClient

from circuit_tracer_cli.export.splice import read_top_level, replace_value
from circuit_tracer_cli.server.annotations import check_annotations, from_reference

from .builders import make_client

GOOD: list[dict[str, Any]] = [
    {},
    {"pinnedIds": [], "supernodes": [], "linkType": "both", "clickedId": "", "sg_pos": ""},
    {"supernodes": [["label", "a", "b"]], "clerps": [["1", "x"]], "pruningThreshold": 0.5},
    {"clerps": '[["1", "x"]]', "hiddenIds": ["a"], "unknown": {"deep": [1, None]}},
]
BAD: list[Any] = [
    [],
    "text",
    None,
    3,
    {"pinnedIds": "a,b"},
    {"pinnedIds": [1]},
    {"pinnedIds": {"a": 1}},
    {"supernodes": [[]]},
    {"supernodes": ["a"]},
    {"supernodes": [["a", 1]]},
    {"clerps": [["a"]]},
    {"linkType": "sideways"},
    {"linkType": 1},
    {"clickedId": 5},
    {"pruningThreshold": "0.5"},
    {"pruningThreshold": True},
    {"edgeThreshold": "0.5"},
]


@pytest.mark.parametrize("params", GOOD)
def test_good_annotations_are_stored_as_sent(
    data_dir: Path, client: TestClient, params: dict[str, Any]
) -> None:
    reply = client.put("/api/graphs/demo/annotations", json=params, headers={"If-Match": "*"})
    assert reply.status_code == 200
    assert json.loads((data_dir / "demo.json").read_text())["qParams"] == params


@pytest.mark.parametrize("params", BAD)
def test_bad_annotations_are_refused(data_dir: Path, client: TestClient, params: Any) -> None:
    before = (data_dir / "demo.json").read_bytes()
    reply = client.put("/api/graphs/demo/annotations", content=json.dumps(params), headers={"If-Match": "*"})
    assert reply.status_code == 422
    assert set(reply.json()) == {"error", "hint"}
    assert (data_dir / "demo.json").read_bytes() == before


@pytest.mark.parametrize("body", [b"", b"{", b"\xff", b'{"pruningThreshold": NaN}', b"[" * 100_000])
def test_bodies_that_are_not_json(client: TestClient, body: bytes) -> None:
    reply = client.put("/api/graphs/demo/annotations", content=body, headers={"If-Match": "*"})
    assert reply.status_code == 400


def test_nulls_are_dropped() -> None:
    assert check_annotations({"pinnedIds": None, "clickedId": "a"}) == {"clickedId": "a"}


@pytest.mark.parametrize("chunked", [False, True])
def test_large_bodies_are_refused(data_dir: Path, chunked: bool) -> None:
    client = make_client(data_dir, max_body=1 << 20)
    body = json.dumps({"clickedId": "x" * (1 << 20)}).encode()
    content = iter([body[:1000], body[1000:]]) if chunked else body
    reply = client.put("/api/graphs/demo/annotations", content=content, headers={"If-Match": "*"})
    assert reply.status_code == 413
    assert "1 MiB" in reply.json()["error"]


def test_the_reference_page_saves_strings_and_arrays_are_written(data_dir: Path, client: TestClient) -> None:
    params = {
        "pinnedIds": "1_7_0,E_5_0",
        "supernodes": '[["a, b","1_7_0"]]',
        "clerps": '[["43","label"]]',
        "linkType": "either",
        "clickedId": None,
        "sg_pos": "1 2",
        "pruningThreshold": "0.6",
    }
    body = {"qParams": params, "timestamp": "2026-01-01T00:00:00Z"}
    reply = client.post("/save_graph/some/where/demo?x=1", json=body)
    assert reply.status_code == 200
    assert json.loads((data_dir / "demo.json").read_text())["qParams"] == {
        "pinnedIds": ["1_7_0", "E_5_0"],
        "supernodes": [["a, b", "1_7_0"]],
        "clerps": [["43", "label"]],
        "linkType": "either",
        "sg_pos": "1 2",
        "pruningThreshold": 0.6,
    }


def test_empty_strings_of_the_reference_page() -> None:
    assert from_reference({"pinnedIds": "", "supernodes": "", "pruningThreshold": ""}) == {
        "pinnedIds": [],
        "supernodes": [],
    }


@pytest.mark.parametrize("body", [[], {}, {"qParams": []}, {"qParams": None}])
def test_a_save_without_annotations(client: TestClient, body: Any) -> None:
    assert client.post("/save_graph/demo", json=body).status_code == 400


@pytest.mark.parametrize(
    "params", [{"supernodes": "["}, {"clerps": "[" * 100_000}, {"pruningThreshold": "x"}]
)
def test_a_save_with_unreadable_strings(client: TestClient, params: dict[str, str]) -> None:
    assert client.post("/save_graph/demo", json={"qParams": params}).status_code == 422


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(st.text(), JSON, max_size=4), JSON, st.sampled_from([None, 2]), st.booleans())
def test_replacing_one_value_keeps_the_rest(
    document: Any, value: Any, indent: int | None, ascii_only: bool
) -> None:
    text = json.dumps(document, indent=indent, ensure_ascii=ascii_only)
    new = replace_value(text, read_top_level(text), "qParams", json.dumps(value))
    assert json.loads(new) == {**document, "qParams": value}
    again = replace_value(new, read_top_level(new), "qParams", json.dumps(value))
    assert again == new


@given(st.text(max_size=40) | JSON.map(json.dumps))
def test_the_walk_agrees_with_a_strict_parser(text: str) -> None:
    from circuit_tracer_cli.errors import BadGraphFile

    def refuse(name: str) -> None:
        raise ValueError(name)

    try:
        expected = json.loads(text, parse_constant=refuse)
    except (ValueError, RecursionError):
        expected = None
    if isinstance(expected, dict):
        assert read_top_level(text).values == expected
    else:
        with pytest.raises(BadGraphFile):
            read_top_level(text)
