"""A score is the sum of its pairs, and differences of scores are differences of the logarithms of the pattern."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from circuit_tracer_cli.attention import pairs as pairs_module
from circuit_tracer_cli.attention.constants import origins
from circuit_tracer_cli.attention.pairs import top_pairs
from circuit_tracer_cli.attention.prompt import FrozenPrompt
from circuit_tracer_cli.attention.qk import Score, attend, qk_attribution
from circuit_tracer_cli.backends.base import ScoreWeights
from circuit_tracer_cli.errors import InvalidValue, UnsupportedArchitecture
from tests.attention.prompts import cases, frozen_prompt
from tests.builders import PROMPT, on_both_backends

CASES = ("backend_name", "family", "kind", "skip", "read", "write")
LAST = len(PROMPT) - 1


def keys_of(score: Score, query: int) -> list[int]:
    """The keys in sight."""
    return [key for key in range(query + 1) if score.weights.sees(query, key)]


@pytest.mark.parametrize(CASES, on_both_backends(cases()))
def test_sources_and_constants_are_the_stream(
    backend_name: str, family: str, kind: str, skip: bool, read: str, write: str
) -> None:
    prompt = frozen_prompt(family, kind, skip, read, write, backend_name)
    for layer in range(prompt.engine.n_layers):
        parts, residual = origins(prompt, layer), prompt.frozen.layers[layer].residual
        assert residual is not None
        error = parts.constants.sum(0) + parts.sources - residual
        assert float(error.abs().max() / residual.abs().max()) < 2e-6


def largest_pattern_error(prompt: FrozenPrompt) -> float:
    """How far differences of capped scores are from differences of the logarithms of the pattern, over all heads."""
    worst = 0.0
    for layer in range(prompt.engine.n_layers):
        for head in range(prompt.n_heads):
            score = Score(prompt, layer, head)
            for query in (2, LAST):
                keys = keys_of(score, query)
                made = torch.tensor([score.weights.capped(score.value(query, key)) for key in keys])
                log = score.pattern[query, keys].double().log()
                worst = max(worst, float(((made - made[0]) - (log - log[0])).abs().max()))
                outside = [key for key in range(len(PROMPT)) if key not in keys]
                assert float(score.pattern[query, outside].abs().sum()) == 0
    return worst


@pytest.mark.parametrize(CASES, on_both_backends(cases()))
def test_score_differences_are_log_pattern_differences(
    backend_name: str, family: str, kind: str, skip: bool, read: str, write: str
) -> None:
    assert largest_pattern_error(frozen_prompt(family, kind, skip, read, write, backend_name)) < 1e-4


def _wrong_gain(weights: ScoreWeights) -> ScoreWeights:
    assert weights.query.norm is not None
    norm = replace(weights.query.norm, gain=weights.query.norm.gain - 1)
    return replace(weights, query=replace(weights.query, norm=norm))


def _wrong_rotation(weights: ScoreWeights) -> ScoreWeights:
    return replace(weights, in_pairs=not weights.in_pairs)


def _wrong_scaling(weights: ScoreWeights) -> ScoreWeights:
    return replace(weights, scaling=weights.scaling * 1.1)


def _no_cap(weights: ScoreWeights) -> ScoreWeights:
    return replace(weights, softcap=1e9)


@pytest.mark.parametrize(
    ("family", "mistake"),
    [
        ("gemma3", _wrong_gain), ("olmo2", _wrong_gain), ("llama", _wrong_rotation), ("gptj", _wrong_rotation),
        ("gpt2", _wrong_scaling), ("gemma2", _wrong_scaling), ("gemma2", _no_cap),
    ],
)  # fmt: skip
def test_a_wrong_factor_shows_in_the_pattern(
    family: str, mistake: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Sums of pairs close with any factor; only the pattern tells."""
    prompt = frozen_prompt(family, "clt")
    right = largest_pattern_error(prompt)
    backend = prompt.model.model
    known = backend.score_weights
    monkeypatch.setattr(backend, "score_weights", lambda *args: mistake(known(*args)), raising=False)
    assert largest_pattern_error(prompt) > 50 * right


@pytest.mark.parametrize(CASES, on_both_backends(cases()))
def test_pairs_and_constants_add_up_to_the_score(
    backend_name: str, family: str, kind: str, skip: bool, read: str, write: str
) -> None:
    prompt = frozen_prompt(family, kind, skip, read, write, backend_name)
    for layer, head in ((0, 1), (1, prompt.n_heads - 1), (2, 0)):
        score = Score(prompt, layer, head)
        first, *_, other = keys_of(score, LAST)
        found = attend(prompt, layer, head, LAST, first, n=5)
        size = abs(found.score or 0.0) + sum(abs(value) for _, value in found.constants) + 1e-3
        assert abs(found.unexplained) < 1e-5 * size
        parts = sum(value for *_, value in found.pairs) + sum(value for _, value in found.constants)
        assert parts + found.rest == pytest.approx(found.score, abs=1e-9 * size)
        for side in ("q", "k"):
            listed = sum(value for _, value in getattr(found, side))
            whole = listed + getattr(found, f"{side}_rest") + getattr(found, f"{side}_constants")
            assert whole == pytest.approx(found.score, abs=1e-5 * size)
        against = attend(prompt, layer, head, LAST, first, other, n=5)
        assert against.score == pytest.approx(
            score.value(LAST, first) - score.value(LAST, other), abs=1e-9 * size
        )
        rest = attend(prompt, layer, head, LAST, first, "rest", n=5)
        average = sum(
            float(score.pattern[LAST, key]) * score.value(LAST, key) for key in keys_of(score, LAST)
        )
        assert rest.score == pytest.approx(score.value(LAST, first) - average, abs=1e-9 * size)
        for one in (against, rest):
            assert abs(one.unexplained) < 2e-5 * size


def test_marginals_are_sums_of_pairs_and_groups_are_sums_of_sources() -> None:
    prompt = frozen_prompt("gemma2", "clt")
    one = attend(prompt, 2, 1, LAST, 4, n=10**9)
    by_q: dict[str, float] = {}
    for q, _, value in one.pairs:
        by_q[q] = by_q.get(q, 0.0) + value
    key = Score(prompt, 2, 1).factor("key", ((4, 1.0),))
    Q = Score(prompt, 2, 1).factor("query", ((LAST, 1.0),))
    names = [prompt.name_of(node) for node in prompt.node_of_column.tolist()]
    constant = dict(zip(names, (Q.sources.T @ key.constants.sum(1)).tolist(), strict=False))
    assert len(one.q) > 100
    for name, value in one.q:
        assert by_q.get(name, 0.0) + constant[name] == pytest.approx(value, abs=1e-6)
    grouped = attend(prompt, 2, 1, LAST, 4, n=10**9, group="feature")
    for name, value in grouped.q[:20]:
        assert value == pytest.approx(sum(v for n, v in one.q if n.rsplit("_", 1)[0] == name), abs=1e-9)
    assert grouped.score == one.score
    names_of = {"mine": [name for name, _ in one.q[:7]]}
    mine = dict(attend(prompt, 2, 1, LAST, 4, n=0, group=names_of).q)
    assert mine["mine"] == pytest.approx(sum(value for _, value in one.q[:7]), abs=1e-9)


@pytest.mark.parametrize("tile", [3, 16, 4096])
def test_tiles_find_the_largest_pairs(tile: int, monkeypatch: pytest.MonkeyPatch) -> None:
    g = torch.Generator().manual_seed(3)
    Q, K = (torch.randn(5, n, generator=g) * torch.rand(n, generator=g) ** 3 for n in (40, 31))
    K[:, 3] = 0
    monkeypatch.setattr(pairs_module, "TILE", tile)
    whole = (Q.T @ K).flatten()
    places, values = top_pairs(Q, K, 25)
    want = whole.abs().sort(descending=True).values[:25]
    assert torch.allclose(values.abs(), want)
    assert torch.allclose((Q.T @ K)[places[:, 0], places[:, 1]], values)
    assert len(top_pairs(Q, K, 10**6)[1]) == 40 * 30


def test_the_soft_cap_is_told_as_a_factor() -> None:
    prompt = frozen_prompt("gemma2", "plt")
    found = attend(prompt, 1, 0, LAST, LAST)
    score = Score(prompt, 1, 0)
    assert score.weights.softcap == 50
    assert found.score is not None
    assert found.softcap_factor * found.score == pytest.approx(score.weights.capped(found.score))
    assert found.softcap_factor < 1


def test_the_pattern_alone() -> None:
    prompt = frozen_prompt("mistral", "plt")
    found = attend(prompt, 1, 0, -1).to_dict()
    assert found["key"] is None
    assert found["score"] is None
    assert found["pairs"] == []
    assert sum(key["value"] for key in found["pattern"]) == pytest.approx(1, abs=1e-6)
    assert [key["score"] is None for key in found["pattern"]] == [True] * 3 + [False] * 4


def test_what_can_not_be_asked_is_named() -> None:
    prompt = frozen_prompt("mistral", "plt")
    for arguments, message in [
        ({"layer": 3, "head": 0, "query": 2, "key": 1}, "no layer 3"),
        ({"layer": 1, "head": 4, "query": 2, "key": 1}, "no head 4"),
        ({"layer": 1, "head": 0, "query": 7, "key": 1}, "query position 7 is outside"),
        ({"layer": 1, "head": 0, "query": 2, "key": -9}, "key position -9 is outside"),
        ({"layer": 1, "head": 0, "query": 2, "key": 3}, "can't look ahead"),
        ({"layer": 1, "head": 0, "query": 6, "key": 1}, "outside the window"),
        ({"layer": 1, "head": 0, "query": 6, "key": 5, "against": 5}, "with itself"),
        ({"layer": 1, "head": 0, "query": 6, "against": 5}, "needs a key"),
        ({"layer": 1, "head": 0, "query": 6, "key": 5, "against": "all"}, "against is neither"),
    ]:
        with pytest.raises(InvalidValue, match=message):
            qk_attribution(prompt.graph, prompt.model, **arguments)  # type: ignore[arg-type]


def test_a_family_that_does_not_declare_its_scores_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    prompt = frozen_prompt("llama", "plt")
    monkeypatch.setattr(prompt.model.model.scores, "layout", None)
    with pytest.raises(UnsupportedArchitecture, match="their computation isn't declared"):
        attend(prompt, 1, 0, 2, 1)


def test_the_record_has_the_shape_that_programs_read() -> None:
    prompt = frozen_prompt("llama", "clt", precise=False)
    found = qk_attribution(prompt.graph, prompt.model, layer=2, head=3, query=-1, key=2, against=1).to_dict()
    assert list(found)[:11] == [
        "layer", "head", "query", "key", "against", "score", "pattern", "constants", "q", "k", "pairs",
    ]  # fmt: skip
    assert set(found["pairs"][0]) == {"q", "k", "value"}
    assert set(found["q"][0]) == {"node", "value"}
    assert len(found["pairs"]) == 10
    total = sum(one["value"] for part in ("pairs", "constants") for one in found[part]) + found["rest"]
    assert total == pytest.approx(found["score"])
