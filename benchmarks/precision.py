"""How far rounded graphs are from float32 ones, on the demo: `python -m benchmarks.precision`.

First models and transcoders in 16 bits, then the engine's products alone. TF32 needs a GPU; its rounding is imitated here, on the
factors of every product of the engine.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from circuit_tracer_cli import Graph, ReplacementModel, attribute, compute_graph_scores
from circuit_tracer_cli.attribution.linear import LinearEngine, Targets

PROMPTS = (
    "Fact: the capital of the state containing Dallas is",
    "Fact: the capital of the state containing Houston is",
    "The opposite of small is",
)


@dataclass(frozen=True, slots=True)
class Difference:
    """Two graphs of one prompt, compared."""

    features: int  # active in the first
    common_features: int  # active in both
    edges: (
        float  # relative L2 distance of the edges from features and tokens to features and the first target
    )
    errors: float  # the same for the edges from error nodes


def difference(exact: Graph, rounded: Graph) -> Difference:
    """Compare two full graphs of one prompt on the features that are active in both."""
    place = [
        {tuple(row): index for index, row in enumerate(graph.active_features.tolist())}
        for graph in (exact, rounded)
    ]
    common = sorted(set(place[0]) & set(place[1]))
    edges, errors = [], []
    for graph, of in zip((exact, rounded), place, strict=True):
        layout, matrix = graph.layout, graph.adjacency_matrix
        features = [of[row] for row in common]
        rows = matrix[[*features, layout.logit_offset]]
        tokens = rows[:, layout.token_offset : layout.logit_offset]
        edges.append(torch.cat([rows[:, features], tokens], dim=1))
        errors.append(rows[:, layout.error_offset : layout.token_offset])
    return Difference(len(place[0]), len(common), _relative(*edges), _relative(*errors))


def _relative(want: torch.Tensor, got: torch.Tensor) -> float:
    return float((want - got).norm() / want.norm())


aten = torch.ops.aten
FIRST_FACTOR = {
    **dict.fromkeys((aten.mm.default, aten.mm.out, aten.bmm.default, aten.bmm.out), 0),
    aten.addmm_.default: 1,
}
"""Which operand of a product is its first factor; the second follows."""


class ImitatedTF32(TorchDispatchMode):
    """Rounds the factors of float32 products to the 11 bits that TF32 keeps."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        first = FIRST_FACTOR.get(func)
        if first is not None:
            args = (*args[:first], *map(_to_tf32, args[first : first + 2]), *args[first + 2 :])
        return func(*args, **(kwargs or {}))


def _to_tf32(values: torch.Tensor) -> torch.Tensor:
    bits = values.contiguous().view(torch.int32)
    return ((bits + 0x1000) & ~0x1FFF).view(torch.float32)


@contextmanager
def _imitated_tf32() -> Iterator[None]:
    """While this is on, rows are computed with imitated TF32."""
    usual = LinearEngine.rows

    def rows(self: LinearEngine, targets: Targets) -> torch.Tensor:
        with ImitatedTF32():
            return usual(self, targets)

    LinearEngine.rows = rows  # type: ignore[method-assign]
    try:
        yield
    finally:
        LinearEngine.rows = usual  # type: ignore[method-assign]


CAPPED: dict[str, Any] = {"max_feature_nodes": 64, "batch_size": 16, "update_interval": 1}
"""A trace that chooses half of the features or fewer, ranked anew after every 16."""


def of_products(transcoders: str) -> None:
    """Print lines of one set for the precisions of the products."""
    model = ReplacementModel.from_pretrained("demo", transcoders, device="cpu")
    for name in ("tf32", "bf16"):
        for prompt in PROMPTS:
            want, few = attribute(prompt, model), attribute(prompt, model, **CAPPED)
            with _imitated_tf32() if name == "tf32" else nullcontext():
                precision = "float32" if name == "tf32" else name
                got = attribute(prompt, model, precision=precision)
                capped = attribute(prompt, model, precision=precision, **CAPPED)
            d = difference(want, got)
            same = len(set(few.selected_features.tolist()) & set(capped.selected_features.tolist()))
            largest = (want.adjacency_matrix - got.adjacency_matrix).abs().amax(1)
            of_row = want.adjacency_matrix.abs().amax(1).clamp_min(1e-9)
            scores = [[*compute_graph_scores(graph)] for graph in (want, got)]
            print(
                f"{transcoders:11} {name:9} {d.features:8} {d.edges:.6f} {d.errors:.6f} {float((largest / of_row).max()):.5f}"
                f"  {same} of {len(few.selected_features)}"
                + "".join(f"  {a:.5f} → {b:.5f}" for a, b in zip(*scores, strict=True))
            )


def main() -> None:
    """Print the tables."""
    print("transcoders dtype     features  common  edges   errors  replacement score")
    for transcoders in ("demo", "demo-plt"):
        exact = ReplacementModel.from_pretrained("demo", transcoders, device="cpu")
        wanted = [attribute(prompt, exact) for prompt in PROMPTS]
        for dtype in (torch.bfloat16, torch.float16):
            model = ReplacementModel.from_pretrained("demo", transcoders, device="cpu", dtype=dtype)
            for prompt, want in zip(PROMPTS, wanted, strict=True):
                got = attribute(prompt, model)
                d = difference(want, got)
                scores = [compute_graph_scores(graph)[0] for graph in (want, got)]
                print(
                    f"{transcoders:11} {model.cfg.dtype:9} {d.features:8} {d.common_features:7}  {d.edges:.5f} {d.errors:.5f}"
                    f" {scores[0]:.4f} → {scores[1]:.4f}"
                )
    print(
        "transcoders products  features  edges    errors  largest  same selection  replacement  completeness score"
    )
    for transcoders in ("demo", "demo-plt"):
        of_products(transcoders)


if __name__ == "__main__":
    main()
