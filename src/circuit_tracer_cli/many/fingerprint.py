"""One graph in about fifty numbers, for statistics and classifiers over many graphs (compare CRV, arXiv 2510.09312)."""

from __future__ import annotations

import numpy as np

from circuit_tracer_cli.many.diff import path_lengths
from circuit_tracer_cli.many.facts import ERROR, FEATURE, KINDS, TOKEN, Array, Facts

VERSION = 1
"""Increased when a number's meaning changes; adding numbers doesn't change it."""

_QUANTILES = (0.1, 0.5, 0.9)
_LENGTHS = 8


def fingerprint(facts: Facts) -> dict[str, float]:
    """Return the numbers of one graph by name; NaN if undefined. They cover kept nodes and edges unless noted."""
    out: dict[str, float] = {"version": float(VERSION), "n_tokens": float(facts.n_pos)}
    kept = facts.kept
    for i, name in enumerate(KINDS):
        out[f"n_{name}"] = float((kept & (facts.kind == i)).sum())
    n_nodes, n_edges = float(kept.sum()), float(len(facts.source))
    out |= {"n_edges": n_edges, "density": n_edges / max(n_nodes * (n_nodes - 1) / 2, 1)}
    out |= {"replacement": facts.replacement, "completeness": facts.completeness}
    out |= _influence(facts)
    out |= _targets(facts)
    for name, values in (
        ("weight", np.abs(facts.weight)),
        ("edge_share", facts.edge_share),
        ("in_degree", np.bincount(facts.target, minlength=len(kept))[kept & (facts.kind == FEATURE)]),
        ("out_degree", np.bincount(facts.source, minlength=len(kept))[kept & (facts.kind == FEATURE)]),
        ("activation", facts.activation[kept & (facts.kind == FEATURE)]),
    ):
        out |= _quantiles(name, values)
    out["negative_flow"] = _share(float(facts.flow[facts.weight < 0].sum()), float(facts.flow.sum()))
    out["same_position_flow"] = _share(
        float(facts.flow[facts.position[facts.source] == facts.position[facts.target]].sum()),
        float(facts.flow.sum()),
    )
    lengths = path_lengths(facts, _LENGTHS)
    out["mean_path_length"] = float((lengths * np.arange(1, len(lengths) + 1)).sum())
    for i in range(_LENGTHS):
        out[f"paths_of_{i + 1}"] = float(lengths[i]) if i < len(lengths) else 0.0
    return out


def _influence(facts: Facts) -> dict[str, float]:
    """Where the influence is and how it is spread, over the full graph if the file has it."""
    total = float(facts.influence.sum())
    features = facts.kind == FEATURE
    share = facts.share[features]
    spread = share[share > 0]
    layers = facts.layer[features] / max(1, facts.n_layers - 1)
    third = np.minimum((layers * 3).astype(np.int64), 2)
    ranked = np.sort(share)[::-1]
    return {
        "error_share": _share(float(facts.influence[facts.kind == ERROR].sum()), total),
        "token_share": _share(float(facts.influence[facts.kind == TOKEN].sum()), total),
        "influence_entropy": float(-(spread * np.log(spread)).sum()) if len(spread) else 0.0,
        "top_10_share": float(ranked[:10].sum()),
        "top_100_share": float(ranked[:100].sum()),
        "depth": float((share * layers).sum()),
        "early_share": float(share[third == 0].sum()),
        "middle_share": float(share[third == 1].sum()),
        "late_share": float(share[third == 2].sum()),
        "last_position_share": float(share[facts.position[features] == facts.n_pos - 1].sum()),
        "first_position_share": float(share[facts.position[features] == 0].sum()),
    }


def _targets(facts: Facts) -> dict[str, float]:
    weights = np.array([weight for *_, weight in facts.targets])
    total = float(weights.sum())
    known = weights[weights > 0] / total if total > 0 else np.empty(0)
    return {
        "top_probability": float(weights.max(initial=0.0)),
        "explained_probability": total,
        "target_entropy": float(-(known * np.log(known)).sum()) if len(known) else 0.0,
    }


def _quantiles(name: str, values: Array) -> dict[str, float]:
    found = np.quantile(values, _QUANTILES) if len(values) else np.full(len(_QUANTILES), np.nan)
    return {f"{name}_p{round(q * 100)}": float(v) for q, v in zip(_QUANTILES, found, strict=True)}


def _share(part: float, whole: float) -> float:
    return part / whole if whole else 0.0
