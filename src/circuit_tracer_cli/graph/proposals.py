"""Labels that a trace proposes for features, as stored in a graph's metadata. Imports no torch.

    from Dallas, state → Texas, Austin      driven by these tokens of the prompt, raises those outputs
    from Dallas ⊣ France                    lowers that output

`features/proposals.py` makes them; `export` copies them into the nodes of graph files.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

PROPOSALS = "proposed_labels"
"""Key of a graph's metadata: `features` by `layer/feature`, `drivers` by node id, and ids of `negative` nodes.

Where an activation is negative, as neurons' often are, a node lowers what its decoder raises.
"""
WIDTH = 40
"""Largest number of characters of a label."""
_STANDS_OUT = 3.5
_DRIVES, _MOST_TOKENS = 0.15, 2
_SPACES = {"\n": "line end", "\t": "tab"}


def proposals_of(metadata: Mapping[str, Any], tokens: Sequence[str] | None) -> dict[str, dict[str, Any]]:
    """Return the proposed label of each node that has one, by node id, as in graph files.

    Args:
        metadata: The graph's metadata.
        tokens: The prompt's tokens as text.

    Returns:
        `{"text", "provenance", "promotes", "suppresses", "driven_by"}`: tokens with their effect in standard deviations over the
        vocabulary, and `[token, position, share]` of the tokens that drive the node. Empty keys are left out.
    """
    stored = metadata.get(PROPOSALS)
    if not isinstance(stored, Mapping):
        return {}
    features, drivers = stored.get("features"), stored.get("drivers")
    if not isinstance(features, Mapping) or not isinstance(drivers, Mapping):
        return {}
    silent = set(metadata.get("zero_positions") or ())
    negative = stored.get("negative")
    turned = set(map(str, negative)) if isinstance(negative, list) else set()
    found = {}
    for node_id, places in drivers.items():
        layer, _, rest = str(node_id).partition("_")
        known = features.get(f"{layer}/{rest.partition('_')[0]}") or {}
        try:
            driven = [[tokens[p] if tokens else f"token {p}", p, share] for p, share in places]
            proposal = _proposal(_turned(known) if node_id in turned else known, driven, silent)
        except (TypeError, ValueError, IndexError, AttributeError):
            continue  # an edited file
        if proposal is not None:
            found[str(node_id)] = proposal
    return found


def _turned(known: Mapping[str, Any]) -> dict[str, Any]:
    """The effects of a feature whose activation is negative."""
    pairs = {name: known.get(name) or () for name in ("promotes", "suppresses")}
    turned = {name: [[token, -strength] for token, strength in found] for name, found in pairs.items()}
    return {"promotes": turned["suppresses"], "suppresses": turned["promotes"]}


def _proposal(known: Mapping[str, Any], driven: list[list[Any]], silent: set[int]) -> dict[str, Any] | None:
    up, down = list(known.get("promotes") or ()), list(known.get("suppresses") or ())
    telling = [token for token, position, share in driven if share >= _DRIVES and position not in silent]
    raised = [token for token, strength in up if strength >= _STANDS_OUT]
    lowered = [token for token, strength in down if strength <= -_STANDS_OUT]
    text = _composed(_words(telling), *((" → ", _words(raised)) if raised else (" ⊣ ", _words(lowered))))
    if not text:
        return None
    made_of = [
        *(["tokens that drive it on this prompt"] if telling else []),
        *(["tokens that its decoder raises or lowers (W_dec·W_U)"] if raised or lowered else []),
    ]
    values = {"promotes": up, "suppresses": down, "driven_by": driven}
    provenance = f"trace: {', '.join(made_of)}"
    return {
        "text": text,
        "provenance": provenance,
        **{name: value for name, value in values.items() if value},
    }


def _words(tokens: Sequence[str]) -> list[str]:
    """Tokens as written in a label, each once, without punctuation-only ones."""
    shown = [" ".join(str(token).split()) or _SPACES.get(str(token)[:1], "space") for token in tokens]
    telling = [word for word in shown if any(map(str.isalnum, word))] or shown
    return list(dict.fromkeys(telling))[:_MOST_TOKENS]


def _composed(drivers: list[str], arrow: str, outputs: list[str]) -> str:
    """The text, dropping words from the end of the longer list until it fits."""
    while True:
        text = f"from {', '.join(drivers)}" if drivers else ""
        text = (text + arrow + ", ".join(outputs)).strip() if outputs else text
        if len(text) <= WIDTH:
            return text
        longer = max(drivers, outputs, key=len)
        if len(longer) == 1:
            return text[: WIDTH - 1].rstrip() + "…"
        longer.pop()
