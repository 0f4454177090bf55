"""Feature locations by name (spec/replacement-model.md 1.8), and what they mean to the engine. Imports no torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from circuit_tracer_cli.backends.families.base import Layout
from circuit_tracer_cli.errors import ModelMismatch

ReadKind = Literal["resid_mid", "normalized", "normed"]
WriteKind = Literal["mlp_out", "mlp"]

READ_HOOKS: dict[str, tuple[str, ReadKind]] = {
    "hook_resid_mid": ("ln2.hook_in", "resid_mid"),
    "ln2.hook_normalized": ("ln2.hook_in", "normalized"),
    "ln2.hook_out": ("mlp.hook_in", "normed"),
    "mlp.hook_in": ("mlp.hook_in", "normed"),
}
"""Feature input hook → the hook with its value, and where that is relative to the pre-MLP norm."""

WRITE_HOOKS: dict[str, WriteKind] = {"hook_mlp_out": "mlp_out", "mlp.hook_out": "mlp"}
"""Feature output hook → whether it is after or before a post-MLP norm."""


@dataclass(frozen=True, slots=True)
class FeaturePoints:
    """Where transcoders read and write, for the engine.

    `read`: `resid_mid` before the pre-MLP norm, `normalized` divided by its scale but before the gain, `normed` after the gain.
    `write`: `mlp_out` is what is added to the stream, `mlp` the MLP's output before a post norm.
    """

    read: ReadKind
    write: WriteKind


def read_hooks(layout: Layout, *, parallel: bool) -> list[str]:
    """The existing feature input hooks: no stream between attention and MLP in parallel blocks, no scale without a norm."""
    missing = {"hook_resid_mid"} if parallel else set()
    missing |= {"ln2.hook_normalized", "ln2.hook_out"} if layout.ln2 is None else set()
    return [name for name in READ_HOOKS if name not in missing]


def read_hook(feature_input_hook: str, layout: Layout) -> str:
    """The hook of a block with a feature input hook's value."""
    name = READ_HOOKS[feature_input_hook][0]
    if name == "ln2.hook_in":
        return "mlp.hook_in" if layout.ln2 is None else "ln1.hook_in" if layout.one_norm else name
    return name


def feature_points(
    feature_input_hook: str,
    feature_output_hook: str,
    *,
    parallel: bool,
    model: str,
    layout: Layout | None = None,
) -> FeaturePoints:
    """The meaning of two hook names in a model. Raises ModelMismatch naming the hooks that exist.

    Args:
        feature_input_hook: The hook that transcoders read from.
        feature_output_hook: The hook that they write to.
        parallel: True if attention and MLP run in parallel; then there is no `hook_resid_mid`.
        model: The model's name for errors.
        layout: The parts of its blocks.
    """
    layout = Layout() if layout is None else layout
    reads = read_hooks(layout, parallel=parallel)
    for role, hook, known in (
        ("feature_input_hook", feature_input_hook, reads),
        ("feature_output_hook", feature_output_hook, list(WRITE_HOOKS)),
    ):
        if hook not in known:
            raise ModelMismatch(
                f"{role} {hook!r} doesn't exist in {model}",
                hint=f"correct the set's config.yaml; this model has {', '.join(known)}",
            )
    read = READ_HOOKS[feature_input_hook][1]
    return FeaturePoints("resid_mid" if layout.ln2 is None else read, WRITE_HOOKS[feature_output_hook])
