"""`attribute` as a whole: selection, metadata, dtypes, prompts at the edge."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from tests.builders import PROMPT, backend, replacement, transcoders

from circuit_tracer_cli import attribute
from circuit_tracer_cli.attribution import ranking, rows
from circuit_tracer_cli.errors import BadPrompt, InvalidValue, NoActiveFeatures
from circuit_tracer_cli.graph.graph import Graph
from circuit_tracer_cli.replacement import ReplacementModel
from circuit_tracer_cli.transcoders.activations import JumpReLU
from circuit_tracer_cli.types import SilentProgress


class Recorder(SilentProgress):
    """Remembers what it is told."""

    def __init__(self) -> None:
        self.phases: list[tuple[str, int | None]] = []
        self.steps = 0

    def phase(self, name: str, total: int | None = None) -> None:
        self.phases.append((name, total))

    def advance(self, steps: int = 1) -> None:
        self.steps += steps


def test_a_limited_graph_holds_the_columns_of_the_full_one() -> None:
    model = replacement("llama", "clt")
    full = attribute(list(PROMPT), model)
    some = attribute(list(PROMPT), model, max_feature_nodes=40, batch_size=8)
    assert len(some.selected_features) == 40
    assert len(some.active_features) == len(full.active_features)
    n = len(full.active_features)
    shared = torch.arange(n, full.n_nodes)
    nodes = torch.cat([some.selected_features, shared])
    torch.testing.assert_close(
        some.adjacency_matrix, full.adjacency_matrix[nodes][:, nodes], atol=1e-6, rtol=1e-5
    )


@pytest.mark.parametrize("work", [1, 40, 100_000])
def test_the_compute_block_changes_nothing(work: int, monkeypatch: pytest.MonkeyPatch) -> None:
    model = replacement("gemma2", "plt", "jumprelu", read="ln2.hook_normalized")
    want = attribute(list(PROMPT), model, max_feature_nodes=30, batch_size=4, update_interval=2)
    monkeypatch.setattr(rows, "CPU_WORK", work)
    monkeypatch.setattr(rows, "ROWS_AT_LEAST", 1)
    got = attribute(list(PROMPT), model, max_feature_nodes=30, batch_size=4, update_interval=2)
    assert torch.equal(got.selected_features, want.selected_features)
    torch.testing.assert_close(got.adjacency_matrix, want.adjacency_matrix, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("in_memory", [0, 5000])
def test_rows_kept_in_files_change_nothing(in_memory: int, monkeypatch: pytest.MonkeyPatch) -> None:
    model = replacement("llama", "clt")
    want = attribute(list(PROMPT), model, max_feature_nodes=30, batch_size=4, update_interval=2)
    monkeypatch.setattr(ranking, "free_memory", lambda device=None: 3 * in_memory + 1)
    got = attribute(list(PROMPT), model, max_feature_nodes=30, batch_size=4, update_interval=2)
    assert torch.equal(got.selected_features, want.selected_features)
    assert torch.equal(got.adjacency_matrix, want.adjacency_matrix)


def test_zero_and_none_mean_all_features() -> None:
    model = replacement("llama", "plt")
    graphs = [attribute(list(PROMPT), model, max_feature_nodes=count) for count in (None, 0, 10**9)]
    assert len({len(graph.selected_features) for graph in graphs}) == 1
    assert len(graphs[0].selected_features) == len(graphs[0].active_features)


def test_metadata_tells_how_the_graph_was_made() -> None:
    graph = attribute(list(PROMPT), replacement("qwen3", "plt", skip=True), max_n_logits=2, batch_size=17)
    meta = graph.metadata
    assert meta["engine"] == "closed-form"
    assert meta["settings"]["batch_size"] == 17
    assert meta["prompt_tokens"] == [str(token) for token in PROMPT]
    assert meta["transcoders"]["kind"] == "plt"
    assert meta["dtype"] == "float32"
    assert set(meta["timings"]) >= {"forward pass", "feature rows"}


def test_metadata_tells_what_the_model_says_next() -> None:
    model = replacement("llama", "clt")
    said = attribute(list(PROMPT), model, attribution_targets=torch.tensor([3])).metadata["top_predictions"]
    logits, _ = model.get_activations(list(PROMPT))
    shares, ids = torch.topk(logits[0, -1].double().softmax(-1), 10)
    assert [entry["id"] for entry in said] == ids.tolist()
    assert [entry["probability"] for entry in said] == pytest.approx(shares.tolist(), rel=1e-4)
    assert said[0]["token"] == model.tokenizer.decode([int(ids[0])])


def test_progress_counts_every_row() -> None:
    progress = Recorder()
    graph = attribute(
        list(PROMPT), replacement("llama", "plt"), max_feature_nodes=20, batch_size=3, progress=progress
    )
    assert progress.steps == 20 + len(graph.logit_targets)
    assert ("feature rows", 20) in progress.phases


def test_a_prompt_without_active_features_is_refused() -> None:
    silent = transcoders("plt", "jumprelu")
    for layer in silent.layers:
        layer.activation = JumpReLU(torch.full((layer.d_transcoder,), 1e9))
    with pytest.raises(NoActiveFeatures, match="no feature is active"):
        attribute(list(PROMPT), ReplacementModel(backend("llama"), silent))


@pytest.mark.parametrize(
    ("prompt", "message"), [("", "empty"), ([], "empty"), ([0] * 65, "65 tokens"), ([0, 48], "48")]
)
def test_prompts_that_are_refused(prompt: object, message: str) -> None:
    with pytest.raises(BadPrompt, match=message):
        attribute(prompt, replacement("llama", "plt"))  # type: ignore[arg-type]


def test_a_first_token_is_put_in_front_when_there_is_none() -> None:
    graph = attribute("3 45 7", replacement("llama", "plt"))
    assert graph.input_tokens.tolist() == [0, 3, 45, 7]
    assert not (graph.active_features[:, 1] == 0).any()


def test_inactive_positions_at_the_end_are_no_trouble() -> None:
    """The reference gives a too short reconstruction here."""
    model = replacement("llama", "clt", "jumprelu")
    graph = attribute([0, 3], model)
    assert graph.n_pos == 2


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_sixteen_bit_models_give_float32_rows(dtype: torch.dtype) -> None:
    """Rows agree with float32 ones to what the rounding of a 16-bit forward pass allows."""
    graph = attribute(
        list(PROMPT), replacement("llama", "plt", dtype=dtype), attribution_targets=torch.tensor([5])
    )
    exact = attribute(list(PROMPT), replacement("llama", "plt"), attribution_targets=torch.tensor([5]))
    assert graph.adjacency_matrix.dtype == torch.float32
    assert graph.cfg.dtype == str(dtype).removeprefix("torch.")
    shared = {tuple(f) for f in graph.active_features.tolist()} & {
        tuple(f) for f in exact.active_features.tolist()
    }
    assert len(shared) > 0.9 * len(exact.active_features)

    def error_columns(g: object) -> torch.Tensor:
        matrix, n = g.adjacency_matrix, len(g.selected_features)  # type: ignore[attr-defined]
        return matrix[-1, n:]

    scale = error_columns(exact).abs().max()
    assert (error_columns(graph) - error_columns(exact)).abs().max() < 0.2 * scale


def test_the_reference_gives_the_same_numbers_twice() -> None:
    model = replacement("gpt_neox", "plt", read="mlp.hook_in")
    first, second = (attribute(list(PROMPT), model, max_feature_nodes=25, batch_size=4) for _ in range(2))
    assert torch.equal(first.adjacency_matrix, second.adjacency_matrix)
    assert dataclasses.asdict(first.cfg) == dataclasses.asdict(second.cfg)


@pytest.mark.parametrize(
    "settings",
    [
        {"batch_size": 0},
        {"max_feature_nodes": -1},
        {"desired_logit_prob": float("nan")},
        {"update_interval": 0},
        {"offload": "gpu"},
        {"engine": "magic"},
    ],
)
def test_settings_that_are_refused(settings: dict[str, object]) -> None:
    with pytest.raises(InvalidValue):
        attribute(list(PROMPT), replacement("llama", "plt"), **settings)  # type: ignore[arg-type]


def test_a_family_without_a_closed_form_is_traced_by_the_generic_engine(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model = replacement("llama", "plt")
    want = attribute(list(PROMPT), model)
    monkeypatch.setattr(model.model, "weights", None)
    got = attribute(list(PROMPT), model)
    assert got.metadata["engine"] == "vector-jacobian"
    torch.testing.assert_close(got.adjacency_matrix, want.adjacency_matrix, atol=1e-5, rtol=1e-5)
    with pytest.raises(InvalidValue, match="no closed form"):
        attribute(list(PROMPT), model, engine="closed-form")


def test_ids_need_no_tokenizer() -> None:
    model = replacement("llama", "plt")
    bare = ReplacementModel(model.model, model.transcoders)
    want = attribute(list(PROMPT), model)
    tokenizer, model.model.tokenizer = model.model.tokenizer, None
    try:
        got = attribute(list(PROMPT), bare)
    finally:
        model.model.tokenizer = tokenizer
    assert got.metadata["prompt_tokens"][1] == "⟨3⟩"
    assert torch.equal(got.adjacency_matrix, want.adjacency_matrix)


@pytest.mark.parametrize("settings", [{"max_feature_nodes": 40, "batch_size": 2, "update_interval": 4}, {}])
def test_a_partial_graph_is_the_final_one_without_the_rows_to_come(
    settings: dict[str, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rows, "CPU_WORK", 2000)
    model = replacement("llama", "clt")
    partial: list[Graph] = []
    final = attribute(list(PROMPT), model, on_partial=lambda make: partial.append(make()), **settings)
    plain = attribute(list(PROMPT), model, **settings)
    assert torch.equal(final.adjacency_matrix, plain.adjacency_matrix)
    assert len(partial) > 3
    known = [int(graph.adjacency_matrix.any(1).sum()) for graph in partial]
    assert known == sorted(known)
    assert known[0] == len(final.logit_targets) < known[-1]
    names = {name: place for place, name in enumerate(final.node_ids())}
    for graph in partial:
        places = torch.tensor([names[name] for name in graph.node_ids()])
        there = graph.adjacency_matrix.any(1)
        want = final.adjacency_matrix[places][:, places]
        assert torch.equal(graph.adjacency_matrix[there], want[there])


def test_nobody_has_to_look_at_a_partial_graph() -> None:
    model = replacement("llama", "clt")
    seen: list[object] = []
    attribute(list(PROMPT), model, on_partial=seen.append, max_feature_nodes=20, batch_size=4)
    assert len(seen) == 2  # after the logits, and at the one ranking between 16 and 20 features
