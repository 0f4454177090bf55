"""The embedded demo: a small trained model with a two-hop circuit, its transcoders, and example prompts.

Importing this package costs nothing; training and measuring live in its modules.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Literal, NotRequired, TypedDict

DATA = Path(__file__).parent / "data"


class DemoPrompt(TypedDict):
    """One example prompt of `data/prompts.json`; a two-hop question names its city, the place between, and another place."""

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
    """A model's name for files that others read: of a folder only the last part, which says nothing about this machine."""
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
