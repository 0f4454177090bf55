"""The graphs and feature examples that the browser tests look at."""

from __future__ import annotations

import gzip
import json
import struct
import zlib
from pathlib import Path
from typing import Any

SCRIPT = '<img src=x onerror="window.hacked = true"><script>window.hacked = true</script>'
RIGHT_TO_LEFT = "\u202eمرحبا world"
LONG = "very " * 2000 + "long"


def node(node_id: str, kind: str, layer: str, position: int, **more: Any) -> dict[str, Any]:
    """One node of a graph file."""
    base = {
        "node_id": node_id,
        "jsNodeId": node_id,
        "feature_type": kind,
        "layer": layer,
        "ctx_idx": position,
    }
    return {
        **base,
        "feature": 0,
        "clerp": "",
        "influence": 0.1,
        "activation": None,
        "token_prob": 0.0,
        **more,
    }


def feature(layer: int, index: int, position: int, **more: Any) -> dict[str, Any]:
    """A feature node with its Cantor code."""
    code = (layer + index) * (layer + index + 1) // 2 + index
    kind = "cross layer transcoder"
    return node(
        f"{layer}_{index}_{position}", kind, str(layer), position, feature=code, activation=2.5, **more
    )


def graph(
    slug: str, tokens: list[str], nodes: list[dict[str, Any]], links: list[tuple[str, str, float]]
) -> dict[str, Any]:
    """A whole graph file."""
    metadata = {
        "slug": slug,
        "scan": "set",
        "prompt_tokens": tokens,
        "prompt": "".join(tokens),
        "node_threshold": 0.8,
    }
    return {
        "metadata": {**metadata, "schema_version": 1},
        "qParams": {"pinnedIds": [], "supernodes": [], "linkType": "both", "clickedId": "", "sg_pos": ""},
        "nodes": nodes,
        "links": [{"source": source, "target": target, "weight": weight} for source, target, weight in links],
    }


def demo() -> dict[str, Any]:
    """Dallas → Texas → Austin, with an error node, a suppressing link and a node above the threshold."""
    nodes = [
        feature(1, 10, 1, clerp="Dallas", influence=0.3),
        feature(2, 20, 2, clerp="Texas", influence=0.5),
        feature(2, 21, 2, clerp="say a capital", influence=0.7),
        feature(2, 22, 1, influence=0.801),
        node("1_-1_2", "mlp reconstruction error", "1", 2, influence=0.6),
        node("E_7_1", "embedding", "E", 1),
        node("E_8_2", "embedding", "E", 2),
        node("4_50_2", "logit", "4", 2, clerp='Output " Austin" (p=0.600)', token_prob=0.6, influence=None),
        node("4_51_2", "logit", "4", 2, clerp='Output " Dallas" (p=0.100)', token_prob=0.1, influence=None),
    ]
    links = [
        ("E_7_1", "1_10_1", 4.0),
        ("1_10_1", "2_20_2", 3.0),
        ("E_8_2", "2_20_2", -1.0),
        ("E_8_2", "2_21_2", 2.0),
        ("1_10_1", "2_22_1", 1.0),
        ("2_20_2", "4_50_2", 3.0),
        ("2_21_2", "4_50_2", 2.0),
        ("2_22_1", "4_50_2", -0.5),
        ("1_-1_2", "4_50_2", -1.0),
        ("2_20_2", "4_51_2", -2.0),
    ]
    return graph("demo", ["<bos>", " Dallas", " is"], nodes, links)


def hostile() -> dict[str, Any]:
    """Every text that a file can bring in, as nasty as it gets."""
    nodes = [
        feature(1, 10, 0, clerp=SCRIPT),
        feature(1, 11, 1, clerp=RIGHT_TO_LEFT),
        feature(1, 12, 2, clerp=LONG),
        feature(1, 13, 3, clerp="🧠👩🏽‍🔬 emoji"),
        node("E_1_0", "embedding", "E", 0, clerp=SCRIPT),
        node("3_50_3", "logit", "3", 3, clerp=f'Output "{SCRIPT}" (p=0.600)', token_prob=0.6, influence=None),
    ]
    links = [
        ("1_10_0", "3_50_3", 1.0),
        ("1_11_1", "3_50_3", -1.0),
        ("1_12_2", "3_50_3", 1.0),
        ("E_1_0", "1_10_0", 1.0),
    ]
    document = graph("hostile", [SCRIPT, RIGHT_TO_LEFT, LONG, "\n"], nodes, links)
    document["qParams"]["pinnedIds"] = [entry["node_id"] for entry in nodes]
    document["qParams"]["supernodes"] = [[SCRIPT, "1_10_0", "1_11_1"]]
    document["metadata"]["title_prefix"] = SCRIPT
    return document


def write_graphs(folder: Path) -> None:
    """The demo, the hostile graph, one saved by the reference's page, and a truncated file."""
    reference = demo()
    reference["metadata"]["slug"] = "von früher"
    reference["qParams"] = {
        "pinnedIds": "1_10_1,2_20_2,2_21_2",
        "supernodes": '[["place","1_10_1","2_20_2"]]',
        "clerps": None,
    }
    for document in (demo(), hostile(), reference):
        path = folder / f"{document['metadata']['slug']}.json"
        path.write_text(json.dumps(document), encoding="utf-8")
    (folder / "broken.json").write_text('{"metadata": {"slug": "broken"')


def record(index: int) -> dict[str, Any]:
    """Examples of one feature."""
    example = {
        "tokens": ["In", " Dallas", ",", " Texas"],
        "tokens_acts_list": [0, 3.5, 0, 1.0],
        "train_token_ind": 1,
    }
    return {
        "index": index,
        "examples_quantiles": [
            {
                "quantile_name": "Top activations",
                "examples": [example, {**example, "is_repeated_datapoint": True}],
            }
        ],
        "top_logits": [" Austin", SCRIPT],
        "bottom_logits": [" Paris"],
        "act_min": 0,
        "act_max": 4,
        "quantile_values": [value / 25 for value in range(1, 101)],
        "histogram": [8, 4, 2, 1],
        "activation_frequency": 0.0021,
    }


def write_features(folder: Path) -> None:
    """Examples for feature 10 of layer 1 only."""
    body = zlib.compress(json.dumps(record(10)).encode())
    (folder / "layer.bin").write_bytes(struct.pack("<I", len(body)) + body)
    offsets = [0] * 11 + [4 + len(body)] * 20
    index = [{"filename": "layer.bin", "offsets": [0] * 31}, {"filename": "layer.bin", "offsets": offsets}]
    (folder / "index.json.gz").write_bytes(gzip.compress(json.dumps(index).encode()))
