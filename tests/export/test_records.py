from __future__ import annotations

import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from circuit_tracer_cli.errors import InvalidValue
from circuit_tracer_cli.export.records import Metadata, Node, QParams, cantor_code, cantor_decode, to_values


@pytest.mark.parametrize(
    ("layer", "feature", "code"),
    [(0, 0, 0), (0, 6200, 19229300), (24, 2394, 2926965), (19, 12116, 73647296), (25, 16383, 134635819)],
)
def test_known_codes(layer: int, feature: int, code: int) -> None:
    assert cantor_code(layer, feature) == code
    assert cantor_decode(code) == (layer, feature)


@given(st.integers(0, 10**30), st.integers(0, 10**30))
def test_codes_are_exact_for_any_size(layer: int, feature: int) -> None:
    assert cantor_decode(cantor_code(layer, feature)) == (layer, feature)


@given(st.integers(0, 10**12))
def test_every_code_is_a_feature(code: int) -> None:
    assert cantor_code(*cantor_decode(code)) == code


def test_negative_numbers_have_no_code() -> None:
    for call in (lambda: cantor_code(-1, 0), lambda: cantor_code(0, -1), lambda: cantor_decode(-1)):
        with pytest.raises(InvalidValue):
            call()


def test_example_nodes_of_the_format() -> None:
    assert to_values(Node.feature_node(3, 5, 412, 0.61, 7.25)) == {
        "node_id": "3_412_5", "feature": 86732, "layer": "3", "ctx_idx": 5, "feature_type": "cross layer transcoder",
        "token_prob": 0.0, "is_target_logit": False, "run_idx": 0, "reverse_ctx_idx": 0, "jsNodeId": "3_412-0",
        "clerp": "", "influence": 0.61, "activation": 7.25,
    }  # fmt: skip
    assert to_values(Node.token_node(0, 2, 0.2)) == {
        "node_id": "E_2_0", "feature": 0, "layer": "E", "ctx_idx": 0, "feature_type": "embedding", "token_prob": 0.0,
        "is_target_logit": False, "run_idx": 0, "reverse_ctx_idx": 0, "jsNodeId": "E_2-0", "clerp": "",
        "influence": 0.2, "activation": None,
    }  # fmt: skip


def test_error_and_logit_nodes() -> None:
    error = Node.error_node(5, 3)
    assert (error.node_id, error.jsNodeId, error.feature, error.layer) == ("5_-1_3", "5_-1-3", -1, "5")
    assert error.node_id != Node.feature_node(0, 3, 5).node_id
    logit = Node.logit_node("27_22605_10", 10, 22605, " Austin", 0.4567, is_first=True, n_layers=26)
    assert (logit.layer, logit.jsNodeId, logit.clerp) == ("27", "L_22605-10", 'Output " Austin" (p=0.457)')
    again = Node.logit_node("27_22605_10_2", 10, 22605, " Austin", 0.4567, is_first=False, n_layers=26)
    assert again.jsNodeId == "L_22605-10_2"


def test_extra_entries_stand_beside_the_others() -> None:
    values = to_values(Metadata(slug="a", scan="b", prompt_tokens=[], prompt="", extra={"title_prefix": "x"}))
    assert values["title_prefix"] == "x"
    assert "extra" not in values
    assert to_values(QParams()) == {
        "pinnedIds": [], "supernodes": [], "linkType": "both", "clickedId": "", "sg_pos": ""
    }  # fmt: skip


def test_readers_import_no_torch() -> None:
    code = (
        "import sys, circuit_tracer_cli.export.graph_json, circuit_tracer_cli.export.graph_list, circuit_tracer_cli.export.slugs;"
        "print([name for name in ('torch', 'numpy', 'transformers') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
