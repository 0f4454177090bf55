"""Edits of heads resolved for a prompt: the changed pattern rows of each layer.

A head's look from one position is a row of its pattern, the attention that it pays to each key. Scaling a row scales what
the head writes there; scaling by zero ablates it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from circuit_tracer_cli.errors import UnsuitableIntervention
from circuit_tracer_cli.interventions.spec import AnyEdit, HeadEdit, LooksAt, Scaled


@dataclass(frozen=True, slots=True)
class HeadRows:
    """Pattern rows of one head and their new value: a multiple, a look at one key, or rows `(query, key)`."""

    head: int
    queries: tuple[int, ...]
    value: Scaled | LooksAt | Tensor
    n_keys: int | None = None  # expected number of keys, if a window may have cut some off

    def apply(self, pattern: Tensor, out: Tensor) -> None:
        """Write the rows into `out (1, head, query, key)`, made from those of `pattern`."""
        rows = list(self.queries)
        if isinstance(self.value, Scaled):
            out[0, self.head, rows] = pattern[0, self.head, rows] * self.value.factor
        elif isinstance(self.value, LooksAt):
            if self.n_keys not in (None, out.shape[-1]):
                raise UnsuitableIntervention(
                    f"head {self.head} can't look at key {self.value.key} from a generated token: its window has moved on",
                    "limit the queries, for example @4:9",
                )
            out[0, self.head, rows] = 0
            out[0, self.head, rows, self.value.key] = 1
        else:
            out[0, self.head, rows] = self.value.to(out)


HeadEdits = dict[int, list[HeadRows]]
"""Rows by layer, in the order of the edits; the later of two edits of a row counts."""


def changed_pattern(pattern: Tensor, rows: Sequence[HeadRows]) -> Tensor:
    """The pattern `(1, head, query, key)` with some rows changed."""
    out = pattern.clone()
    for some in rows:
        some.apply(pattern, out)
    return out


def resolve_heads(edits: Sequence[AnyEdit], n_pos: int, n_layers: int, n_heads: int) -> HeadEdits:
    """The rows of a prompt of `n_pos` tokens that edits of heads change, by layer. Edits of features are ignored.

    Raises BadIntervention naming the edit and the layer, head, position or value that doesn't fit.
    """
    found: HeadEdits = {}
    for edit in edits:
        if isinstance(edit, HeadEdit):
            _check_head(edit, n_layers, n_heads)
            queries = queries_of(edit, n_pos)
            if queries:
                rows = HeadRows(edit.head, queries, _value(edit, queries, n_pos))
                found.setdefault(edit.layer, []).append(rows)
    return dict(sorted(found.items()))


def heads_at_generated(edits: Sequence[AnyEdit], position: int, n_prompt: int) -> HeadEdits:
    """The rows of a pass over one generated token at `position` of the full text, by layer."""
    found: HeadEdits = {}
    for edit in edits:
        if not isinstance(edit, HeadEdit) or not edit.open_ended or isinstance(edit.value, Tensor):
            continue
        assert isinstance(edit.position, slice)
        start, step = edit.position.start or 0, edit.position.step or 1
        start = max(0, start + n_prompt) if start < 0 else start
        if position >= start and (position - start) % step == 0:
            value = edit.value
            if isinstance(value, LooksAt) and value.key < 0:
                value = LooksAt(value.key + n_prompt)
            found.setdefault(edit.layer, []).append(HeadRows(edit.head, (0,), value, position + 1))
    return found


def head_conflict(edits: Sequence[AnyEdit], n_pos: int) -> tuple[HeadEdit, HeadEdit] | None:
    """The first two edits that give one pattern row different values, or None. They fit the prompt."""
    seen: dict[tuple[int, int, int], HeadEdit] = {}
    for edit in edits:
        if isinstance(edit, HeadEdit):
            for query in queries_of(edit, n_pos):
                before = seen.setdefault((edit.layer, edit.head, query), edit)
                if before is not edit and str(before).partition("=")[2] != str(edit).partition("=")[2]:
                    return before, edit
    return None


def _check_head(edit: HeadEdit, n_layers: int, n_heads: int) -> None:
    hint = "`circuit-tracer heads GRAPH --edge SOURCE:TARGET` names the heads that carry an edge"
    if not 0 <= edit.layer < n_layers:
        raise UnsuitableIntervention(
            f"edit {edit}: layer {edit.layer} doesn't exist; the model has layers 0 to {n_layers - 1}", hint
        )
    if not 0 <= edit.head < n_heads:
        raise UnsuitableIntervention(
            f"edit {edit}: head {edit.head} doesn't exist; a layer has heads 0 to {n_heads - 1}", hint
        )


def queries_of(edit: HeadEdit, n_pos: int) -> tuple[int, ...]:
    """The positions of a prompt whose look an edit changes, counted from 0. Raises BadIntervention without any."""
    if isinstance(edit.position, slice):
        found = tuple(range(*edit.position.indices(n_pos)))
        if not found and not edit.open_ended:
            raise UnsuitableIntervention(
                f"edit {edit}: the slice contains none of the {n_pos} positions",
                hint=f"positions are 0 to {n_pos - 1}, and a slice excludes its end",
            )
        return found
    if not -n_pos <= edit.position < n_pos:
        raise UnsuitableIntervention(
            f"edit {edit}: position {edit.position} is outside the {n_pos} tokens",
            hint=f"positions are 0 to {n_pos - 1}, or -1 to {-n_pos} from the end",
        )
    return (edit.position % n_pos,)


def _value(edit: HeadEdit, queries: tuple[int, ...], n_pos: int) -> Scaled | LooksAt | Tensor:
    """The new rows, checked against the prompt."""
    value = edit.value
    if isinstance(value, LooksAt):
        if not -n_pos <= value.key < n_pos:
            raise UnsuitableIntervention(
                f"edit {edit}: key {value.key} is outside the {n_pos} tokens", f"keys are 0 to {n_pos - 1}"
            )
        key = value.key % n_pos
        if key > queries[0]:
            raise UnsuitableIntervention(
                f"edit {edit}: query {queries[0]} can't look ahead to key {key}",
                f"limit the queries, for example L{edit.layer}H{edit.head}@{key}:=@{key}",
            )
        return LooksAt(key)
    if isinstance(value, Tensor):
        if (
            value.ndim not in (1, 2)
            or value.shape[-1] != n_pos
            or value.shape[:-1] not in ((), (len(queries),))
        ):
            raise UnsuitableIntervention(
                f"edit {edit}: a pattern of shape {tuple(value.shape)} doesn't fit {len(queries)} queries and "
                f"{n_pos} keys",
                "give one row (keys), or one for each query",
            )
        rows = value.expand(len(queries), n_pos)
        ahead = torch.arange(n_pos) > torch.tensor(queries)[:, None]
        if bool(rows.cpu()[ahead].any()):
            raise UnsuitableIntervention(
                f"edit {edit}: the pattern looks ahead of its query", "set keys after the query to 0"
            )
        return rows
    return value
