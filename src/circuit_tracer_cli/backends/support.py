"""What is supported, as the families declare it: the table behind `doctor --models`."""

from __future__ import annotations

from dataclasses import dataclass

from circuit_tracer_cli.backends import BACKENDS
from circuit_tracer_cli.backends.families import all_families
from circuit_tracer_cli.backends.families.base import Layout
from circuit_tracer_cli.backends.points import WRITE_HOOKS, read_hooks

PROOFS: dict[str, str] = {
    "oracle": "rows equal an independent float64 replay to 1e-10",
    "autograd": "rows equal the model's own autograd to 1e-5 in float32",
    "backends": "all backends give the same graph to 1e-5 in float32",
    "sums": "sources and constants add up to the model's value at a target",
    "interventions": "pinned interventions change targets by their edges",
}
"""What the tests show for every listed model, on every backend, per layer and across layers. Models that fail aren't listed."""


@dataclass(frozen=True, slots=True)
class Support:
    """One row: a model class and its properties."""

    family: str
    models: str
    architecture: str
    norms: str
    special: str
    feature_inputs: tuple[str, ...]
    feature_outputs: tuple[str, ...]
    engine: str
    backends: tuple[str, ...]
    proofs: tuple[str, ...]
    modules: dict[str, str]


def norms_in_words(layout: Layout) -> str:
    """Kind and positions of a block's norms."""
    kind = "RMS" if layout.norm == "rms" else "layer"
    if layout.one_norm:
        return f"{kind}, one for both"
    before, after = layout.ln1 is not None, layout.ln1_post is not None
    return f"{kind}, {'before and after' if before and after else 'before' if before else 'after'}"


def supported() -> list[Support]:
    """Every model class of the families, in order."""
    return [
        Support(
            family=family.name,
            models=architecture.models,
            architecture=name,
            norms=norms_in_words(architecture.layout),
            special=architecture.special,
            feature_inputs=tuple(
                read_hooks(architecture.layout, parallel=architecture.layout.is_parallel({}))
            ),
            feature_outputs=tuple(WRITE_HOOKS),
            engine="closed form" if family.closed_form else "generic",
            backends=tuple(BACKENDS),
            proofs=tuple(PROOFS),
            modules=_modules(architecture.layout),
        )
        for family in all_families()
        for name, architecture in family.architectures.items()
    ]


def _modules(layout: Layout) -> dict[str, str]:
    """Canonical names → Hugging Face's."""
    block = f"{layout.layers}.{{layer}}"
    of_block = {
        name: f"{block}.{path}"
        for name in ("ln1", "attn", "ln1_post", "ln2", "mlp", "ln2_post")
        if (path := getattr(layout, name)) is not None
    }
    return {"embed": layout.embed, **of_block, "ln_final": layout.ln_final}
