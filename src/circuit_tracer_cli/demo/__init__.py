"""The embedded demo: a small trained model with a two-hop circuit, its transcoders, example prompts, and tables about its facts.

Reads files and loads no model; importing it costs nothing. The files are made by the top-level folder `training`.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Literal, NotRequired, TypedDict

DATA = Path(__file__).parent / "data"
PLACES = "places.json"
QUESTIONS = "questions.json"


class DemoPrompt(TypedDict):
    """One example prompt of `data/prompts.json`; a two-hop question names its city, the intermediate place, and another place."""

    id: str
    title: str
    prompt: str
    answer: str
    note: str
    city: NotRequired[str]
    place: NotRequired[str]
    other: NotRequired[str]
    held_out: bool


def model_label(name: str) -> str:
    """Return the name to show for a model: for a folder only its last part, so that no local path is stored."""
    folder = Path(name).expanduser()
    if not (folder.is_dir() or folder.is_absolute() or name.startswith(".")):
        return name
    return "demo" if folder.resolve() == model_dir().resolve() else folder.resolve().name


def model_dir() -> Path:
    """The Hugging Face folder of the demo model."""
    return DATA / "model"


def transcoder_dir(kind: Literal["clt", "plt"]) -> Path:
    """The folder of the cross-layer or the per-layer transcoders."""
    return DATA / kind


def prompts() -> list[DemoPrompt]:
    """The example prompts, the Dallas prompt first."""
    listed: list[DemoPrompt] = json.loads((DATA / "prompts.json").read_text(encoding="utf-8"))
    return listed


@dataclass(frozen=True, slots=True)
class PlaceFeature:
    """One feature of a place: its layer, its index, its mean activation at the tokens of the place's cities."""

    layer: int
    feature: int
    value: float


@dataclass(frozen=True, slots=True)
class Place:
    """A state or country with its features.

    They are active on at least half of the questions about the place's cities, at the city's token, and not too often elsewhere
    (`choose_sets` in `training/measure_circuit.py`).
    """

    name: str
    kind: str
    features: tuple[PlaceFeature, ...]


@cache
def places(transcoders: Literal["clt", "plt"]) -> dict[str, Place]:
    """Every place by name, for one of the demo's transcoder sets."""
    listed = json.loads((DATA / PLACES).read_text(encoding="utf-8"))[transcoders]
    return {
        name: Place(name, kind, tuple(PlaceFeature(*feature) for feature in features))
        for kind, of_kind in listed.items()
        for name, features in of_kind.items()
    }


@dataclass(frozen=True, slots=True)
class Question:
    """A two-hop question about a city, the intermediate place, and another place to swap in."""

    prompt: str
    city: str
    place: str
    other: str
    answer: str
    other_answer: str


def questions() -> list[tuple[str, str, list[Question]]]:
    """Kind of place, relation, and the questions, with cities and a wording that no feature was chosen on.

    Region, language, currency and continent are left out, since places share them.
    """
    groups: dict[tuple[str, str], list[Question]] = {}
    for one in json.loads((DATA / QUESTIONS).read_text(encoding="utf-8")):
        groups.setdefault((one.pop("kind"), one.pop("relation")), []).append(Question(**one))
    return [(kind, relation, asked) for (kind, relation), asked in groups.items()]
