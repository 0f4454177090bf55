"""Synthetic graphs of any size for the viewer's measurements and tests."""

from __future__ import annotations

from typing import Any

import numpy as np


def synthetic_graph(
    nodes: int, edges: int, layers: int = 26, positions: int = 24, seed: int = 0
) -> dict[str, Any]:
    """A graph file with this many nodes and distinct edges, each edge from a lower to a higher layer and not back in position."""
    rng = np.random.default_rng(seed)
    logits = 10
    features = nodes - positions - logits
    layer = np.sort(rng.integers(0, layers, features))
    position = rng.integers(1, positions, features)
    raw = [_node(f"E_{p}_{p}", "embedding", "E", p) for p in range(positions)]
    for index, (at, where) in enumerate(zip(layer.tolist(), position.tolist(), strict=True)):
        code = (at + index) * (at + index + 1) // 2 + index
        more = {
            "feature": code,
            "activation": 1.0 + index % 9,
            "influence": round(0.8 * (index * 0.618 % 1), 4),
        }
        raw.append(_node(f"{at}_{index}_{where}", "cross layer transcoder", str(at), where, **more))
    for k in range(logits):
        share = 0.5 ** (k + 1)
        more = {"token_prob": share, "influence": None, "clerp": f'Output " t{k}" (p={share:.3f})'}
        raw.append(_node(f"{layers}_{k}_{positions - 1}", "logit", str(layers), positions - 1, **more))
    depth = np.concatenate([np.full(positions, -1), layer, np.full(logits, layers)])
    place = np.concatenate([np.arange(positions), position, np.full(logits, positions - 1)])
    found = np.zeros(0, dtype=np.int64)
    while len(found) < edges:
        source, target = rng.integers(0, nodes, (2, 4 * edges))
        fits = (depth[source] < depth[target]) & (place[source] <= place[target])
        found = np.unique(np.concatenate([found, target[fits] * nodes + source[fits]]))
    found = np.sort(rng.permutation(found)[:edges])
    weights = (rng.standard_normal(edges) * rng.exponential(1.0, edges)).astype(np.float32)
    ids = [node["node_id"] for node in raw]
    links = [
        {"source": ids[pair % nodes], "target": ids[pair // nodes], "weight": weight}
        for pair, weight in zip(found.tolist(), weights.tolist(), strict=True)
    ]
    tokens = [f" word{p}" for p in range(positions)]
    metadata = {"slug": "large", "scan": "synthetic", "prompt_tokens": tokens, "prompt": "".join(tokens)}
    return {
        "metadata": {**metadata, "node_threshold": 0.8, "schema_version": 1},
        "qParams": {},
        "nodes": raw,
        "links": links,
    }


def _node(node_id: str, kind: str, layer: str, position: int, **more: Any) -> dict[str, Any]:
    base = {
        "node_id": node_id,
        "feature_type": kind,
        "layer": layer,
        "ctx_idx": position,
        "jsNodeId": node_id,
    }
    return {
        **base,
        "feature": 0,
        "clerp": "",
        "token_prob": 0.0,
        "influence": 0.1,
        "activation": None,
        **more,
    }
