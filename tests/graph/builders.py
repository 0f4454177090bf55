"""Small graphs for tests: random ones in layer order, the worked example of the method, the reference's own results."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from hypothesis import strategies as st
from safetensors.torch import load_file

from circuit_tracer_cli.graph.graph import Graph
from circuit_tracer_cli.types import LogitTarget, UnifiedConfig

CONFIG = UnifiedConfig(
    n_layers=2,
    d_model=8,
    d_head=4,
    n_heads=2,
    d_mlp=16,
    d_vocab=50,
    tokenizer_name="tiny",
    model_name="tiny",
    original_architecture="TinyForCausalLM",
    dtype="float32",
)


def config(n_layers: int) -> UnifiedConfig:
    """The model facts for so many layers."""
    return UnifiedConfig(**{**CONFIG.to_dict(), "n_layers": n_layers})


def random_graph(
    seed: int = 0,
    n_layers: int = 2,
    n_pos: int = 3,
    n_features: int = 2,
    n_logits: int = 2,
    density: float = 0.7,
    **changes: Any,
) -> Graph:
    """A graph whose edges go from earlier to later layers, `n_features` features at each layer and position."""
    generator = torch.Generator().manual_seed(seed)
    layers, positions = torch.arange(n_layers), torch.arange(n_pos)
    active = (
        torch.cartesian_prod(layers, positions, torch.arange(n_features)) if n_features else torch.zeros(0, 3)
    )
    m, errors, tokens = len(active), n_layers * n_pos, n_pos
    n_nodes = m + errors + tokens + n_logits
    depth = torch.cat(
        [
            active[:, 0] + 1,
            layers.repeat_interleave(n_pos) + 1,
            torch.zeros(tokens),
            torch.full((n_logits,), n_layers + 1),
        ]
    )
    below = depth[None, :] < depth[:, None]
    below[m : m + errors + tokens] = False
    chosen = torch.rand(n_nodes, n_nodes, generator=generator) < density
    weights = torch.randn(n_nodes, n_nodes, generator=generator) * (below & chosen)
    values: dict[str, Any] = {
        "input_string": "<s>one two"[: 3 + n_pos],
        "input_tokens": torch.arange(5, 5 + n_pos),
        "active_features": active.to(torch.int64),
        "adjacency_matrix": weights,
        "cfg": config(n_layers),
        "selected_features": torch.arange(m),
        "activation_values": torch.rand(m, generator=generator) + 0.1,
        "logit_targets": [LogitTarget(f" token{i}", 20 + i) for i in range(n_logits)],
        "logit_probabilities": torch.rand(n_logits, generator=generator) / max(1, n_logits) + 0.01,
        "scan": "someone/some-transcoders",
        "vocab_size": 50,
        "metadata": {"prompt_tokens": [f" t{i}" for i in range(n_pos)], "settings": {"batch_size": 256}},
    }
    return Graph(**{**values, **changes})


@st.composite
def graphs(draw: st.DrawFn) -> Graph:
    """Random graphs of many shapes, the degenerate ones among them."""
    return random_graph(
        seed=draw(st.integers(0, 10_000)),
        n_layers=draw(st.integers(1, 4)),
        n_pos=draw(st.integers(1, 4)),
        n_features=draw(st.integers(0, 3)),
        n_logits=draw(st.integers(1, 3)),
        density=draw(st.sampled_from([0.0, 0.1, 0.5, 1.0])),
    )


def worked_example() -> Graph:
    """Two layers, two positions, one target, one feature per layer at position 1: nodes f0 f1 e00 e01 e10 e11 t0 t1 y."""
    matrix = torch.zeros(9, 9)
    f0, f1, e01, e11, t0, t1, y = 0, 1, 3, 5, 6, 7, 8
    matrix[f0, t0], matrix[f0, t1] = -1, 2
    matrix[f1, f0], matrix[f1, e01], matrix[f1, t1] = 3, 0.5, 0.5
    matrix[y, f0], matrix[y, f1], matrix[y, e01], matrix[y, e11], matrix[y, t1] = 1, 2, -0.5, 0.5, 1
    return Graph(
        input_string="a b",
        input_tokens=torch.tensor([3, 4]),
        active_features=torch.tensor([[0, 1, 7], [1, 1, 9]]),
        adjacency_matrix=matrix,
        cfg=config(2),
        selected_features=torch.tensor([0, 1]),
        activation_values=torch.tensor([1.0, 2.0]),
        logit_targets=[LogitTarget(" c", 5)],
        logit_probabilities=torch.tensor([0.6]),
        scan="s",
        metadata={"prompt_tokens": ["a", " b"]},
    )


def assert_same(a: Graph, b: Graph) -> None:
    """Both graphs hold the same."""
    assert a.input_string == b.input_string
    assert (a.cfg, a.scan, a.vocab_size) == (b.cfg, b.scan, b.vocab_size)
    assert a.logit_targets == b.logit_targets
    assert a.metadata == b.metadata
    for name in (
        "input_tokens",
        "active_features",
        "selected_features",
        "activation_values",
        "logit_probabilities",
    ):
        assert torch.equal(getattr(a, name), getattr(b, name)), name
    assert torch.equal(a.edges.indptr, b.edges.indptr)
    assert torch.equal(a.edges.indices, b.edges.indices)
    assert torch.equal(a.edges.values, b.edges.values)
    assert (a.pruning is None) == (b.pruning is None)
    if a.pruning is not None and b.pruning is not None:
        assert torch.equal(a.pruning.node_mask, b.pruning.node_mask)
        assert torch.equal(a.pruning.cumulative_scores, b.pruning.cumulative_scores)
        for name in (
            "node_threshold",
            "edge_threshold",
            "replacement_score",
            "completeness_score",
            "n_edges_before",
        ):
            assert getattr(a.pruning, name) == getattr(b.pruning, name)


@dataclass(frozen=True)
class GoldenCase:
    """One graph as the reference computed it, and what it made of it."""

    name: str
    folder: Path
    graph: Graph
    tensors: dict[str, torch.Tensor]
    facts: dict[str, Any]

    def edge_mask(self, which: str) -> torch.Tensor:
        """The reference's edge mask `prune_default` or `prune_tight`, dense."""
        mask = torch.zeros(self.graph.n_nodes, self.graph.n_nodes, dtype=torch.bool)
        targets, sources = self.tensors[f"{which}.edge_index"].long().T
        mask[targets, sources] = True
        return mask


def golden_names() -> list[str]:
    """Names of the graph cases beside this checkout; one placeholder where there are none."""
    folder = Path(__file__).resolve().parents[2] / ".." / "shared" / "golden" / "cases"
    found = [path.parent.name for path in folder.glob("*/expected.safetensors")]
    return sorted(name for name in found if not name.endswith("-interventions")) or ["absent"]


def golden_case(golden: Path, name: str) -> GoldenCase:
    """One graph case."""
    folder = golden / "cases" / name
    tensors = load_file(folder / "expected.safetensors")
    facts = json.loads((folder / "expected.json").read_text(encoding="utf-8"))
    targets = [LogitTarget(target["token_str"], target["vocab_idx"]) for target in facts["logit_targets"]]
    parts = ("input_tokens", "active_features", "adjacency_matrix", "selected_features", "activation_values")
    graph = Graph(
        input_string=facts["input_string"],
        cfg=config(facts["n_layers"]),
        logit_targets=targets,
        logit_probabilities=tensors["logit_probabilities"],
        scan=facts["scan"],
        vocab_size=facts["vocab_size"],
        **{part: tensors[part] for part in parts},
    )
    return GoldenCase(name, folder, graph, tensors, facts)
