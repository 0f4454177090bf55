"""How far 16-bit graphs are from float32 ones, on the demo: `python -m benchmarks.precision`."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from circuit_tracer_cli import Graph, ReplacementModel, attribute, compute_graph_scores

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


def main() -> None:
    """Print a table."""
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


if __name__ == "__main__":
    main()
