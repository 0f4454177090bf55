"""References to transcoder sets and their meaning: a local folder, or a folder in a repository on the hub."""

from __future__ import annotations

import difflib
import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal
from urllib.parse import parse_qs, unquote, urlsplit

from circuit_tracer_cli.errors import BadTranscoders, InvalidValue, MissingFile, UnknownReference
from circuit_tracer_cli.transcoders.known import ALIASES, KNOWN_SETS

_DEMO_DATA = Path(__file__).parent.parent / "demo" / "data"
EMBEDDED = {"demo": "clt", "demo-clt": "clt", "demo-plt": "plt"}
"""References of the sets that come with the program, and their folders."""
NEURONS = "neurons"
"""The reference of a model's own neurons."""
USUAL_NEURONS = 128
"""Neurons per layer and position that may become nodes, unless the reference says how many."""
_NAME = r"[A-Za-z0-9][\w.-]*"
_HUB_PATH = re.compile(rf"({_NAME}/{_NAME})((?:/[^/@?#\s]+)*)/?")
_REVISION = re.compile(r"[\w][\w./-]*")
_FORMS = (
    "pass a folder with a config.yaml, USER/REPO[/FOLDER][@REVISION], or one of demo, gemma, llama, neurons"
)


@dataclass(frozen=True, slots=True)
class LocalReference:
    """A folder with weights, and its `scan` id unless its config names one."""

    folder: Path
    default_scan: str


@dataclass(frozen=True, slots=True)
class HubReference:
    """A folder of a repository at a branch, tag or commit (None: the main branch)."""

    repo_id: str
    path: str = ""  # relative to the repository, without leading or trailing slashes
    revision: str | None = None

    @property
    def scan(self) -> str:
        """The id under which the viewer finds feature examples: `repo`, `repo//folder`, each with `@revision`."""
        place = f"{self.repo_id}//{self.path}" if self.path else self.repo_id
        return place + self._suffix

    @property
    def canonical(self) -> str:
        """`repo[/folder][@revision]`: the canonical form of a reference."""
        return (f"{self.repo_id}/{self.path}" if self.path else self.repo_id) + self._suffix

    @property
    def _suffix(self) -> str:
        return f"@{self.revision}" if self.revision else ""


@dataclass(frozen=True, slots=True)
class NeuronReference:
    """The neurons of a model: `neurons`, `neurons:gate-frozen`, `neurons:top=256`, both joined by a comma.

    Attributes:
        gate: What a product of gate and value passes on: half by each factor, or all by the value with the gate frozen.
        top: Neurons per layer and position that may become nodes.
        model: The model that an id of such a set names, `neurons@MODEL`; None in what users write.
    """

    gate: Literal["half", "frozen"] = "half"
    top: int = USUAL_NEURONS
    model: str | None = None

    @property
    def text(self) -> str:
        """The reference without the model."""
        options = ["gate-frozen"] if self.gate == "frozen" else []
        options += [f"top={self.top}"] if self.top != USUAL_NEURONS else []
        return NEURONS + (f":{','.join(options)}" if options else "")

    def scan(self, model: str) -> str:
        """The id of the neurons of a model; also a reference."""
        return f"{self.text}@{model}"


def neuron_reference(reference: str | Path) -> NeuronReference | None:
    """What a reference to a model's own neurons says; None for a reference to anything else. Raises InvalidValue."""
    text, at, model = str(reference).partition("@")
    name, colon, options = text.partition(":")
    if name != NEURONS or isinstance(reference, Path) or (at and not model):
        return None
    found = NeuronReference(model=model or None)
    for option in options.split(",") if colon else ():
        key, _, value = option.partition("=")
        if option == "gate-frozen":
            found = replace(found, gate="frozen")
        elif key == "top" and value.isascii() and value.isdigit() and 0 < int(value) < 10**6:
            found = replace(found, top=int(value))
        else:
            raise InvalidValue(
                f"{reference}: neurons can't be chosen by {option!r}",
                "neurons, neurons:gate-frozen, neurons:top=256, or neurons:gate-frozen,top=256",
            )
    return found


def resolve(reference: str | Path) -> LocalReference | HubReference:
    """Resolve a reference: an embedded set, a folder (absolute, relative, or with `~`), or a repository on the hub.

    An existing folder takes precedence over a repository of the same name. Never uses the network.

    Raises:
        UnknownReference: The reference is none of these.
        MissingFile: The embedded set isn't installed.
        BadTranscoders: The reference is a file.
    """
    text = str(reference)
    if neuron_reference(reference) is not None:
        raise UnknownReference(
            f"{text} are the model's own, so there are no files of them", "use them where a model is given"
        )
    if text in EMBEDDED:
        return LocalReference(_embedded(text), text)
    if not text.strip():
        raise UnknownReference("no transcoder set is named", hint="pass a folder with a config.yaml, or demo")
    if text.startswith("hf://"):
        return hub_uri(text)
    folder = _expand(text)
    if folder.is_dir():
        return LocalReference(folder, str(folder))
    if folder.exists():
        raise BadTranscoders(f"{text} is a file", hint=f"pass its folder: {folder.parent}")
    found = None if isinstance(reference, Path) else hub_reference(text)
    if found is None or _is_mistyped_folder(text, folder):
        raise _unknown(text, folder)
    if found.path and _begins_in_a_folder(text):
        raise UnknownReference(
            f"there is no transcoder folder {text!r}",
            hint=f"check the spelling; on the hub it is hf://{text}",
        )
    return found


def hub_reference(text: str) -> HubReference | None:
    """`gemma`, `llama` or `user/repo[/folder][@revision]`; None for anything else."""
    place, at, revision = ALIASES.get(text, text).partition("@")
    match = _HUB_PATH.fullmatch(place)
    if match is None or (at and not _REVISION.fullmatch(revision)):
        return None
    if not _is_plain(match[2]) or (revision and not _is_plain(revision)):
        return None
    return HubReference(match[1], match[2].strip("/"), revision or None)


def hub_uri(text: str) -> HubReference:
    """`hf://user/repo[/path][@revision]`, or with `?revision=…`. Raises UnknownReference for anything else."""
    parts = urlsplit(text)
    query = parse_qs(parts.query, keep_blank_values=True)
    place = unquote(f"{parts.netloc}{parts.path}")
    found = hub_reference(place) if parts.scheme == "hf" and "/" in place else None
    revisions = query.pop("revision", [])
    if found is None or query or len(revisions) > 1 or (revisions and found.revision):
        raise UnknownReference(
            f"{text} is not a valid hub reference",
            hint="use hf://USER/REPO/PATH, with ?revision=BRANCH_TAG_OR_COMMIT unless it is the main branch",
        )
    if not revisions:
        return found
    if not _REVISION.fullmatch(revisions[0]) or not _is_plain(revisions[0]):
        raise UnknownReference(f"{text} names an invalid revision {revisions[0]!r}")
    return HubReference(found.repo_id, found.path, revisions[0])


def nearest_known(text: str) -> str | None:
    """The known reference that a mistyped one most likely stands for."""
    names = [NEURONS, *EMBEDDED, *ALIASES, *(known.reference for known in KNOWN_SETS)]
    near = difflib.get_close_matches(text, names, n=1, cutoff=0.75)
    return near[0] if near else None


def _is_plain(path: str) -> bool:
    """True if no component leads out of the folder that it is joined to."""
    return not {".", ".."} & set(path.split("/"))


def _expand(text: str) -> Path:
    try:
        return Path(text).expanduser().absolute()
    except RuntimeError:  # ~USER of an unknown user
        return Path(text).absolute()


def _embedded(name: str) -> Path:
    folder = _DEMO_DATA / EMBEDDED[name]
    if not folder.is_dir():
        raise MissingFile(f"the embedded set {name!r} isn't installed", hint="reinstall circuit-tracer-cli")
    return folder


def _is_mistyped_folder(text: str, folder: Path) -> bool:
    """True if the text looks like a repository, but there is a folder with a similar name."""
    known = hub_reference(text)
    if known is not None and known.canonical in {one.reference for one in KNOWN_SETS}:
        return False
    return bool(difflib.get_close_matches(folder.name, _siblings(folder), n=1, cutoff=0.8))


def _begins_in_a_folder(text: str) -> bool:
    """True if a path of three or more parts starts in an existing local folder, and so isn't meant for the hub."""
    known = hub_reference(text)
    if known is not None and known.canonical in {one.reference for one in KNOWN_SETS}:
        return False
    return Path(text).parts[0] not in ALIASES and Path(Path(text).parts[0]).is_dir()


def _unknown(text: str, folder: Path) -> UnknownReference:
    near = difflib.get_close_matches(folder.name, _siblings(folder), n=1)
    if near and "/" in text:
        meant = Path(text).parent / near[0]
        return UnknownReference(f"there is no transcoder folder {text!r}", hint=f"did you mean {meant}?")
    known = nearest_known(text)
    if known is not None:
        return UnknownReference(f"there is no transcoder set {text!r}", hint=f"did you mean {known}?")
    if near:
        return UnknownReference(f"there is no transcoder folder {text!r}", hint=f"did you mean {near[0]}?")
    return UnknownReference(f"there is no transcoder folder {text!r}", hint=_FORMS)


def _siblings(folder: Path) -> list[str]:
    try:
        return sorted(entry.name for entry in folder.parent.iterdir() if entry.is_dir())
    except OSError:
        return []
