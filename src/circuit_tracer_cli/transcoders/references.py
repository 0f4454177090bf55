"""What a user may pass as a transcoder set, and the folder that it means."""

from __future__ import annotations

import difflib
import re
from dataclasses import dataclass
from pathlib import Path

from circuit_tracer_cli.errors import BadTranscoders, MissingFile, UnknownReference

_DEMO_DATA = Path(__file__).parent.parent / "demo" / "data"
_EMBEDDED = {"demo": "clt", "demo-clt": "clt", "demo-plt": "plt"}
_HUB_NAMES = ("gemma", "llama")
_HUB_REFERENCE = re.compile(r"hf://.*|[\w.-]+/[\w./-]+(@[\w./-]+)?")


@dataclass(frozen=True, slots=True)
class ResolvedReference:
    """A folder with a `config.yaml` and weights, and the `scan` id it has unless its config names one."""

    folder: Path
    default_scan: str


def resolve(reference: str | Path) -> ResolvedReference:
    """The folder behind a reference: an embedded set or a directory (absolute, relative, below `~`).

    Raises:
        UnknownReference: It is neither.
        MissingFile: The embedded set isn't in this installation.
        BadTranscoders: It is a file.
    """
    text = str(reference)
    if text in _EMBEDDED:
        return ResolvedReference(_embedded(text), text)
    if not text.strip():
        raise UnknownReference("no transcoder set is named", hint="pass a folder with a config.yaml, or demo")
    folder = _expand(text)
    if folder.is_dir():
        return ResolvedReference(folder, str(folder))
    if folder.exists():
        raise BadTranscoders(f"{text} is a file", hint=f"pass its folder: {folder.parent}")
    raise _unknown(text, folder)


def _expand(text: str) -> Path:
    try:
        return Path(text).expanduser().absolute()
    except RuntimeError:  # ~somebody who doesn't exist
        return Path(text).absolute()


def _embedded(name: str) -> Path:
    folder = _DEMO_DATA / _EMBEDDED[name]
    if not folder.is_dir():
        raise MissingFile(
            f"the embedded set {name!r} isn't in this installation", hint="reinstall circuit-tracer-cli"
        )
    return folder


def _unknown(text: str, folder: Path) -> UnknownReference:
    if text in _HUB_NAMES or (_HUB_REFERENCE.fullmatch(text) and not text.startswith((".", "~"))):
        return UnknownReference(
            f"there is no folder {text!r}, and this version loads no transcoders from the Hugging Face hub",
            hint="download the set (hf download USER/REPO --local-dir DIR) and pass the folder DIR",
        )
    siblings = _siblings(folder)
    near = difflib.get_close_matches(folder.name, siblings, n=1)
    if near:
        return UnknownReference(
            f"there is no transcoder folder {text!r}", hint=f"did you mean {folder.parent / near[0]}?"
        )
    known = difflib.get_close_matches(text, [*_EMBEDDED, *_HUB_NAMES], n=1)
    hint = f"did you mean {known[0]}?" if known else "pass a folder with a config.yaml, or demo"
    return UnknownReference(f"there is no transcoder folder {text!r}", hint=hint)


def _siblings(folder: Path) -> list[str]:
    try:
        return sorted(entry.name for entry in folder.parent.iterdir() if entry.is_dir())
    except OSError:
        return []
