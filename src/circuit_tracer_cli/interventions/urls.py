"""Features from a viewer's URL: its supernodes and pinned nodes, ready for edits."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any, NamedTuple
from urllib.parse import parse_qs, urlsplit

from circuit_tracer_cli.errors import InvalidValue


class Feature(NamedTuple):
    """A node: a feature, a token (layer -1, the vocabulary index as feature) or a logit (layer `n_layers + 1`)."""

    layer: int
    pos: int
    feature_idx: int


def decode_url_features(url: str) -> tuple[dict[str, list[Feature]], list[Feature]]:
    """The supernodes by name and the pinned nodes of a URL; ids of other forms are left out.

    Parameters are split before they are decoded, so that names can contain any character. A repeated name becomes
    `name (2)`, `name (3)`, …

    Raises:
        InvalidValue: `supernodes` isn't a JSON list of lists that begin with a name.
    """
    address = urlsplit(url)
    # Viewers put their state behind the ?, notebook proxies sometimes behind the #.
    parameters = parse_qs(address.query or address.fragment.partition("?")[2])
    supernodes: dict[str, list[Feature]] = {}
    for name, *nodes in _groups(parameters.get("supernodes", ["[]"])[-1]):
        supernodes[_unused(name, supernodes)] = _features(nodes)
    pinned = parameters.get("pinnedIds", [""])[-1]
    return supernodes, _features(pinned.split(","))


def extract_supernode_features(url: str) -> dict[str, list[Feature]]:
    """Only the supernodes; see `decode_url_features`."""
    return decode_url_features(url)[0]


def _groups(text: str) -> list[list[str]]:
    try:
        groups: Any = json.loads(text)
    except (ValueError, RecursionError):
        raise InvalidValue("the supernodes in the URL are not valid JSON", hint="copy the full URL") from None
    if not isinstance(groups, list) or not all(isinstance(group, list) and group for group in groups):
        raise InvalidValue("the supernodes in the URL are not lists of a name and node ids")
    return [[str(part) for part in group] for group in groups]


def _unused(name: str, taken: Iterable[str]) -> str:
    found, count = name, 1
    while found in taken:
        count += 1
        found = f"{name} ({count})"
    return found


def _features(nodes: Iterable[str]) -> list[Feature]:
    return [feature for node in nodes if (feature := _feature(node)) is not None]


def _feature(node: str) -> Feature | None:
    """`layer_feature_position` or `E_token_position`; None for errors and anything else."""
    parts = node.strip().split("_")
    layer = "-1" if parts[0] == "E" else parts[0]
    if len(parts) != 3 or not all(
        part.isascii() and part.isdigit() for part in (layer.removeprefix("-"), *parts[1:])
    ):
        return None
    return Feature(int(layer), int(parts[2]), int(parts[1]))
