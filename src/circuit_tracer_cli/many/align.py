"""Matching of nodes between graphs. Positions become slots; a key is (kind, layer, feature, slot).

`exact`: slots are positions, for equal prompts. `slots`: positions of two prompts are matched token by token, or by the
template of a batch. `end`: distance from the last token. `bag`: positions are left out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from circuit_tracer_cli.errors import CircuitTracerError, InvalidValue
from circuit_tracer_cli.many.facts import FEATURE, LOGIT, Array, Facts, Outline

Level = Literal["exact", "slots", "end", "bag"]
LEVELS: tuple[Level, ...] = ("exact", "slots", "end", "bag")
Match = Literal["feature", "place"]
"""`feature`: features are matched one by one. `place`: all features of a layer and slot are one, for graphs of different sets."""
SLOTS_KEY = "slots"
"""Key of a graph's metadata under which `batch` writes the template slot of each prompt token."""

_LAYER, _SLOT, _FEATURE = 10, 20, 32
"""Bits of a key's parts, below two bits for the kind."""
VIRTUAL = 2**32 - 2**12
"""Feature part of the key of a target that isn't a single token: this number plus its index in the list."""


@dataclass(frozen=True, slots=True)
class Alignment:
    """Slots of several graphs.

    Attributes:
        level: How they were found.
        match: What features are matched by.
        slots: For each graph, the slot of each position, int64 `(P)`.
        names: The text of each slot.
    """

    level: Level
    match: Match
    slots: tuple[Array, ...]
    names: tuple[str, ...]

    @property
    def n_slots(self) -> int:
        """Number of slots."""
        return len(self.names)

    def pairs(self) -> list[tuple[int | None, int | None]]:
        """For two graphs: the position of each slot in both, None if absent."""
        where = [{int(slot): position for position, slot in enumerate(slots)} for slots in self.slots]
        return [(where[0].get(slot), where[1].get(slot)) for slot in range(self.n_slots)]


def align(graphs: Sequence[Outline], level: Level | None = None) -> Alignment:
    """Return slots for the positions of graphs.

    Args:
        graphs: At least one.
        level: None for `exact` if all prompts have the same tokens, `slots` if each graph has template slots or there
            are two graphs, else `bag`.

    Features of different transcoder sets can't be matched: such graphs are compared by place, if they are of one model.

    Raises:
        CircuitTracerError: The graphs are of different models, or can't be aligned in this way.
    """
    match = matched_by(graphs)
    same = all(_same_tokens(graphs[0], graph) for graph in graphs)
    templates = [_template(graph) for graph in graphs]
    if level is None:
        slotted = len(graphs) == 2 or all(template is not None for template in templates)
        level = "exact" if same else "slots" if slotted else "bag"
    if level == "exact":
        if not same:
            raise InvalidValue("the prompts have different tokens", "use --align slots, end or bag")
        return Alignment(level, match, tuple(np.arange(g.n_pos) for g in graphs), graphs[0].tokens)
    if level == "bag":
        return Alignment(
            level, match, tuple(np.zeros(g.n_pos, dtype=np.int64) for g in graphs), ("(any position)",)
        )
    if level == "end":
        longest = max(graphs, key=lambda graph: graph.n_pos)
        slots = tuple(np.arange(g.n_pos) + longest.n_pos - g.n_pos for g in graphs)
        return Alignment(level, match, slots, _names(graphs, slots, longest.n_pos))
    if all(template is not None for template in templates):
        return _by_template(graphs, match, [template for template in templates if template is not None])
    if len(graphs) != 2:
        raise InvalidValue(
            "more than two prompts can be aligned by slots only if batch made them from a template",
            "use --align end or bag",
        )
    first, second = match_tokens(_labels(graphs[0]), _labels(graphs[1]))
    n_slots = int(max(first.max(), second.max())) + 1
    return Alignment("slots", match, (first, second), _names(graphs, (first, second), n_slots))


def matched_by(graphs: Sequence[Outline]) -> Match:
    """Return what features can be matched by.

    Raises CircuitTracerError for graphs of different models, and for one with targets at several positions.
    """
    first = graphs[0]
    for graph in graphs:
        if graph.n_target_positions != 1:
            what = "targets at several positions" if graph.n_target_positions else "nodes inside the model"
            raise CircuitTracerError(
                f"{graph.name} explains {what}, and such graphs can't be compared or merged",
                "compare graphs of tokens at one position each",
            )
    for graph in graphs[1:]:
        if graph.n_layers != first.n_layers:
            raise CircuitTracerError(
                f"{first.name} has {first.n_layers} layers but {graph.name} has {graph.n_layers}",
                "compare graphs of one model",
            )
    return "feature" if len({graph.scan for graph in graphs}) == 1 else "place"


def _same_tokens(a: Outline, b: Outline) -> bool:
    if (a.token_ids >= 0).all() and (b.token_ids >= 0).all():
        return np.array_equal(a.token_ids, b.token_ids)
    return a.tokens == b.tokens


def _labels(graph: Outline) -> list[str]:
    """What a token is matched by: its id, else its text."""
    known = (graph.token_ids >= 0).all()
    return [str(token) for token in graph.token_ids.tolist()] if known else list(graph.tokens)


def _template(graph: Outline) -> list[str] | None:
    """The template slot of each position, if the graph records it."""
    slots = graph.metadata.get(SLOTS_KEY)
    if isinstance(slots, list) and len(slots) == graph.n_pos and all(isinstance(slot, str) for slot in slots):
        return slots
    return None


def _by_template(graphs: Sequence[Outline], match: Match, templates: list[list[str]]) -> Alignment:
    """Slots in the order of the templates. Raises CircuitTracerError if the templates differ."""
    orders = [list(dict.fromkeys(template)) for template in templates]
    for graph, order in zip(graphs, orders, strict=True):
        if order != orders[0]:
            raise CircuitTracerError(
                f"{graph.name} and {graphs[0].name} were made from different templates",
                "use --align end or bag",
            )
    number = {name: index for index, name in enumerate(orders[0])}
    slots = tuple(np.array([number[name] for name in template]) for template in templates)
    return Alignment("slots", match, slots, _names(graphs, slots, len(number)))


def _names(graphs: Sequence[Outline], slots: Sequence[Array], n_slots: int) -> tuple[str, ...]:
    """The text of each slot: its token if all graphs have the same one, else the different ones separated by bars."""
    texts: list[dict[str, None]] = [{} for _ in range(n_slots)]
    for graph, of_graph in zip(graphs, slots, strict=True):
        pieces: dict[int, str] = {}
        for token, slot in zip(graph.tokens, of_graph.tolist(), strict=True):
            pieces[slot] = pieces.get(slot, "") + token
        for slot, text in pieces.items():
            if len(texts[slot]) < 4:
                texts[slot][text] = None
    return tuple("|".join(found) if len(found) < 4 else "|".join([*found][:3]) + "|…" for found in texts)


def match_tokens(a: Sequence[str], b: Sequence[str]) -> tuple[Array, Array]:
    """Slots of two token sequences, each int64 and ascending.

    The last tokens are the same slot. Before them the longest common subsequence is matched, the rightmost of several.
    Tokens between two matches are paired from the end, one of `a` with one of `b`; the rest of the longer stretch has its
    own slots.
    """
    pairs = [*_common(a[:-1], b[:-1]), (len(a) - 1, len(b) - 1)]
    first, second = np.empty(len(a), dtype=np.int64), np.empty(len(b), dtype=np.int64)
    slot = i = j = 0
    for next_i, next_j in pairs:
        gap_a, gap_b = next_i - i, next_j - j
        paired = min(gap_a, gap_b)
        alone = max(gap_a, gap_b) - paired
        (first if gap_a > gap_b else second)[(i if gap_a > gap_b else j) :][:alone] = slot + np.arange(alone)
        slot += alone
        first[next_i - paired : next_i] = second[next_j - paired : next_j] = slot + np.arange(paired)
        slot += paired
        first[next_i] = second[next_j] = slot
        i, j, slot = next_i + 1, next_j + 1, slot + 1
    return first, second


def _common(a: Sequence[str], b: Sequence[str]) -> list[tuple[int, int]]:
    """Index pairs of a longest common subsequence, the rightmost one."""
    lengths = np.zeros((len(a) + 1, len(b) + 1), dtype=np.int32)  # of the prefixes
    for i, token in enumerate(a, 1):
        for j, other in enumerate(b, 1):
            lengths[i, j] = (
                lengths[i - 1, j - 1] + 1 if token == other else max(lengths[i - 1, j], lengths[i, j - 1])
            )
    pairs, i, j = [], len(a), len(b)
    while i and j:
        if a[i - 1] == b[j - 1]:
            pairs.append((i - 1, j - 1))
            i, j = i - 1, j - 1
        elif lengths[i - 1, j] >= lengths[i, j - 1]:
            i -= 1
        else:
            j -= 1
    return pairs[::-1]


def node_keys(graph: Facts, slots: Array, match: Match = "feature") -> Array:
    """uint64 `(T)`: the same number for the same node. Targets that are directions are numbered by their index in the list."""
    d_vocab = graph.graph.vocab_size if graph.graph is not None else None
    feature = graph.feature.astype(np.int64)
    if match == "place":
        feature = np.where(graph.kind == FEATURE, 0, feature)
    targets = graph.target_nodes
    for place, node in enumerate(targets.tolist()):
        text = graph.targets[place][0]
        if (d_vocab is not None and feature[node] >= d_vocab) or " - " in text:
            feature[node] = VIRTUAL + place
    if graph.n_layers >= 2**_LAYER - 2 or len(slots) >= 2**_SLOT:
        raise InvalidValue(f"{graph.name} has too many layers or positions to be compared")
    layer = np.where(graph.kind == LOGIT, 2**_LAYER - 1, graph.layer + 1)
    return packed_keys(graph.kind, layer, slots[graph.position], feature)


def packed_keys(kind: Array, layer: Array, slot: Array, feature: Array) -> Array:
    """uint64: the parts of keys in one number; `layer` is one more than the layer."""
    key = np.asarray(kind).astype(np.uint64)
    for part, bits in ((layer, _LAYER), (slot, _SLOT), (feature & (2**_FEATURE - 1), _FEATURE)):
        key = (key << np.uint64(bits)) | np.asarray(part).astype(np.uint64)
    return key


@dataclass(frozen=True, slots=True)
class KeyParts:
    """The parts of keys: kind, layer (-1 token), slot, feature (-1 error), each int64."""

    kind: Array
    layer: Array
    slot: Array
    feature: Array


def key_parts(keys: Array) -> KeyParts:
    """The parts of node keys; the layer of a target is `2**10 - 2`."""
    feature = (keys & np.uint64(2**_FEATURE - 1)).astype(np.int64)
    slot = (keys >> np.uint64(_FEATURE)) & np.uint64(2**_SLOT - 1)
    layer = (keys >> np.uint64(_FEATURE + _SLOT)) & np.uint64(2**_LAYER - 1)
    kind = keys >> np.uint64(_FEATURE + _SLOT + _LAYER)
    feature = np.where(feature == 2**_FEATURE - 1, -1, feature)
    return KeyParts(kind.astype(np.int64), layer.astype(np.int64) - 1, slot.astype(np.int64), feature)
