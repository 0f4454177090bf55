"""Records that every package can use. Imports no torch."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol


class LogitTarget(NamedTuple):
    """A target that a graph explains: a token's logit, or a custom direction.

    The `vocab_idx` of a custom direction is virtual: vocabulary size + position in the list.
    """

    token_str: str
    vocab_idx: int


class TargetPlace(NamedTuple):
    """Where a target of a graph stands, and what it is.

    Attributes:
        kind: `token`, `direction` or `feature`.
        layer: Where it is read; the number of layers for what is read behind the final norm.
        position: The position in the prompt; the next token is predicted at the last.
    """

    kind: str
    layer: int
    position: int


@dataclass(frozen=True, slots=True)
class UnifiedConfig:
    """The model facts stored in every graph, under TransformerLens' names."""

    n_layers: int
    d_model: int
    d_head: int
    n_heads: int
    d_mlp: int
    d_vocab: int
    tokenizer_name: str
    model_name: str
    original_architecture: str
    n_key_value_heads: int | None = None
    dtype: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return a plain dict without the fields that are None."""
        values = dataclasses.asdict(self)
        return {name: value for name, value in values.items() if value is not None}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> UnifiedConfig:
        """Make the record from a dict, ignoring extra keys. Raises TypeError for a missing one."""
        names = {f.name for f in dataclasses.fields(cls)}
        return cls(**{name: value for name, value in values.items() if name in names})


class Progress(Protocol):
    """Progress callback for long calls."""

    def phase(self, name: str, total: int | None = None) -> None:
        """Begin a phase with `total` steps, if that is known."""

    def advance(self, steps: int = 1) -> None:
        """Report finished steps of the phase."""

    def note(self, message: str) -> None:
        """Show a note to the user."""


class SilentProgress:
    """Progress callback that ignores everything."""

    def phase(self, name: str, total: int | None = None) -> None:
        """Ignored."""

    def advance(self, steps: int = 1) -> None:
        """Ignored."""

    def note(self, message: str) -> None:
        """Ignored."""


PRECISIONS = ("float32", "tf32", "bf16")
"""What the engine's products may be computed in."""
