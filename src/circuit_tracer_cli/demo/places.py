"""Which features stand for a state or a country, as measured for each transcoder set. Reads a file, loads no model.

A place's features are those that are active on at least half of the questions about its cities, at the city's token, and
not too often elsewhere (`measure_circuit.choose_sets`). Each comes with its mean activation there.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from circuit_tracer_cli.demo import DATA

if TYPE_CHECKING:
    from circuit_tracer_cli.interventions.spec import Intervention

FILE = "places.json"


@dataclass(frozen=True, slots=True)
class PlaceFeature:
    """One feature of a place: its layer, its number, its mean activation at the tokens of the place's cities."""

    layer: int
    feature: int
    value: float


@dataclass(frozen=True, slots=True)
class Place:
    """A state or country with its features."""

    name: str
    kind: str
    features: tuple[PlaceFeature, ...]


@cache
def places(transcoders: Literal["clt", "plt"], data: Path = DATA) -> dict[str, Place]:
    """Every place by name, for one of the demo's transcoder sets."""
    listed = json.loads((data / FILE).read_text(encoding="utf-8"))[transcoders]
    return {
        name: Place(name, kind, tuple(PlaceFeature(*feature) for feature in features))
        for kind, of_kind in listed.items()
        for name, features in of_kind.items()
    }


def place_edits(off: Place | None, on: Place | None, position: int) -> list[Intervention]:
    """Edits that turn one place's features off and another's on, at their mean activation; a shared feature stays on."""
    from circuit_tracer_cli.interventions.spec import Intervention

    values: dict[tuple[int, int], float] = {}
    for place, factor in ((off, 0.0), (on, 1.0)):
        for one in place.features if place is not None else ():
            values[one.layer, one.feature] = factor * one.value
    return [
        Intervention(layer, position, feature, value) for (layer, feature), value in sorted(values.items())
    ]


def write_places(chosen: dict[str, dict[str, dict[str, list[tuple[int, int, float]]]]], data: Path) -> None:
    """Write the features of all places, one place a line: set → kind → name → (layer, feature, value)."""
    lines = []
    for transcoders, kinds in chosen.items():
        inner = []
        for kind, named in kinds.items():
            rows = [f"{_json(name)}:{_json(features)}" for name, features in named.items()]
            inner.append(f"{_json(kind)}:{{\n" + ",\n".join(rows) + "\n}")
        lines.append(f"{_json(transcoders)}:{{" + ",\n".join(inner) + "}")
    (data / FILE).write_text("{" + ",\n".join(lines) + "}\n", encoding="utf-8")


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))
