"""Direct effects: with everything non-linear pinned, adding a source again must change targets by its matrix column."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain, zip_longest

import torch
from torch import Tensor

from circuit_tracer_cli.interventions.passes import Push, Recording
from circuit_tracer_cli.interventions.run import Constraints
from circuit_tracer_cli.interventions.spec import Intervention
from circuit_tracer_cli.validation.pace import Phase
from circuit_tracer_cli.validation.precision import rounded_to
from circuit_tracer_cli.validation.subject import Subject

ATOL, RTOL = 5e-4, 1e-5
"""Largest difference between a float32 measurement and an edge."""


@dataclass(frozen=True, slots=True)
class DirectEffects:
    """Measured changes compared with columns of the adjacency matrix.

    Attributes:
        n_columns: Number of sources measured, by kind.
        n_entries: Number of edges compared.
        max_absolute_error: Largest difference of any entry.
        max_relative_error: Largest difference over the largest entry of its column.
        worst: Id of the source with the largest relative error.
        agrees: True if every entry is within 5e-4 + 1e-5·|weight|, which float32 rounding explains; None for a 16-bit graph.
    """

    n_columns: dict[str, int]
    n_entries: int
    max_absolute_error: float
    max_relative_error: float
    worst: str | None
    agrees: bool | None


class PinnedModel:
    """The model with everything non-linear pinned, for measuring changes.

    Args:
        subject: The graph on its model.
    """

    def __init__(self, subject: Subject) -> None:
        self.subject = subject
        self.everything = Constraints(constrained_layers=range(subject.n_layers))
        n_vocab = subject.graph.cfg.d_vocab
        ids = subject.graph.logit_token_ids.cpu()
        self.logit_targets = (ids < min(n_vocab, subject.graph.vocab_size)).nonzero().squeeze(1)
        if "custom" in str(subject.graph.metadata.get("targets", "")):
            self.logit_targets = self.logit_targets[:0]
        self.logit_ids = ids[self.logit_targets]
        nothing = Push(None, 0, torch.zeros_like(subject.frozen.embed[0]))
        self.base = self._state((), (nothing,))

    @property
    def rows(self) -> Tensor:
        """The nodes `(m + k)` whose changes are measured: all features and the targets that are tokens."""
        n = len(self.subject.features)
        return torch.cat([torch.arange(n), self.subject.graph.layout.logit_offset + self.logit_targets])

    def _state(self, edits: Sequence[Intervention], pushes: Sequence[Push]) -> Tensor:
        """Pre-activations of the features and demeaned logits of the targets, float64."""
        with self.subject.model.zero_softcap():
            result = self.subject.run(
                edits, self.everything, Recording(apply_activation_function=False), pushes
            )
        assert result.activations is not None
        last = result.logits[-1].double().cpu()
        return torch.cat([self.subject.at_features(result.activations), (last - last.mean())[self.logit_ids]])

    def change(self, node: int) -> Tensor:
        """The change of `rows` when a feature is doubled, or an error or token vector is added once more."""
        if self.subject.graph.layout.kind(node) == "feature":
            return self._state((self.subject.edit(node, 2.0),), ()) - self.base
        return self._state((), (self.subject.push(node),)) - self.base


@dataclass(slots=True)
class _Tally:
    """The comparison so far."""

    measured: dict[str, int]
    n_entries: int = 0
    absolute: float = 0.0
    relative: float = 0.0
    worst: str | None = None
    agrees: bool = True

    def add(self, kind: str, node_id: str, measured: Tensor, wanted: Tensor) -> None:
        """Compare the measured changes `(m)` with the selected entries, which may be empty."""
        self.measured[kind] += 1
        if not len(wanted):
            return
        difference = (measured - wanted).abs()
        self.agrees = self.agrees and bool((difference <= ATOL + RTOL * wanted.abs()).all())
        wrong, scale = float(difference.max()), float(wanted.abs().max())
        self.n_entries += len(wanted)
        self.absolute = max(self.absolute, wrong)
        if scale > 0 and wrong / scale >= self.relative:
            self.relative, self.worst = wrong / scale, node_id


def measure_direct_effects(
    subject: Subject, nodes: dict[str, list[int]], phase: Phase | None = None
) -> DirectEffects:
    """Compare the columns of some nodes, given by kind, with measurements. In a pruned graph only kept edges count.

    Kinds take turns, so that a phase that is cut short has measured some of each.
    """
    tally = _Tally(dict.fromkeys(nodes, 0))
    turns = zip_longest(*([(kind, node) for node in some] for kind, some in nodes.items()))
    with phase or Phase() as phase:
        pinned = PinnedModel(subject)
        rows = pinned.rows
        columns = edge_columns(subject, [node for some in nodes.values() for node in some])
        for kind, node in phase.each([one for one in chain.from_iterable(turns) if one is not None]):
            wanted = columns[node][rows]
            compared = wanted != 0 if subject.graph.pruning else torch.ones_like(wanted, dtype=torch.bool)
            changes = pinned.change(node)[compared] if bool(compared.any()) else wanted[compared]
            tally.add(kind, subject.graph.node_id(node), changes, wanted[compared])
    judged = None if rounded_to(subject.graph) else tally.agrees
    return DirectEffects(tally.measured, tally.n_entries, tally.absolute, tally.relative, tally.worst, judged)


def edge_columns(subject: Subject, nodes: Sequence[int]) -> dict[int, Tensor]:
    """Columns `(T)` of the adjacency matrix in float64, without making it dense."""
    edges = subject.graph.edges.to("cpu")
    wanted = torch.zeros(edges.n, dtype=torch.bool)
    wanted[list(nodes)] = True
    stored = wanted[edges.indices.long()].nonzero().squeeze(1)
    sources, values = edges.indices[stored].long(), edges.values[stored].double()
    rows = torch.searchsorted(edges.indptr, stored, right=True) - 1
    out = {}
    for node in nodes:
        here = sources == node
        out[node] = torch.zeros(edges.n, dtype=torch.float64)
        out[node][rows[here]] = values[here]
    return out
