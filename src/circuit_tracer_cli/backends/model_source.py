"""Resolves a model name: a local folder, or a model on the hub at a revision. Imports no torch."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from circuit_tracer_cli.backends.gguf_file import gguf_folder, is_gguf
from circuit_tracer_cli.backends.model_config import read_config
from circuit_tracer_cli.errors import BadModel, CircuitTracerError
from circuit_tracer_cli.hub import commit_of


@dataclass(frozen=True, slots=True)
class ModelSource:
    """A model that isn't loaded.

    Attributes:
        name: Its folder, or its name on the hub, as for Hugging Face's loaders.
        revision: Branch, tag or commit on the hub; None for the main branch, and for folders.
        folder: The folder of its files, if it is local.
    """

    name: str
    revision: str | None = None
    folder: Path | None = None

    def config(self) -> dict[str, Any]:
        """Return its configuration, fetched if it is on the hub. Raises BadModel."""
        return read_config(self.folder) if self.folder is not None else _fetched(self.name, self.revision)

    def __str__(self) -> str:
        return f"{self.name}@{self.revision}" if self.revision else self.name


def find_model(name: str) -> ModelSource:
    """Resolve a name: `demo`, a folder, `USER/NAME[@REVISION]` on the hub, or a GGUF file here or on the hub.

    An existing folder takes precedence over a model on the hub. A GGUF file is converted the first time, and fetched if it is
    on the hub; nothing else uses the network.

    Raises:
        BadModel: The name is a path without a folder, or invalid; or a GGUF file that would be read wrongly.
    """
    if name == "demo":
        from circuit_tracer_cli.demo import model_dir

        return ModelSource(str(model_dir()), folder=model_dir())
    folder = Path(name).expanduser()
    if folder.is_dir():
        return ModelSource(str(folder), folder=folder)
    if is_gguf(name):
        folder = gguf_folder(name)
        return ModelSource(str(folder), folder=folder)
    repo, at, revision = name.partition("@")
    if folder.is_absolute() or name.startswith((".", "~")) or repo.count("/") > 1:
        raise BadModel(f"there is no model folder {name}", "check the path given with --model")
    if not repo or (at and not revision):
        raise BadModel(
            f"{name!r} is neither a folder nor a model on the hub", "for example user/name@revision"
        )
    return ModelSource(repo, revision or None)


@functools.lru_cache(maxsize=8)
def _fetched(name: str, revision: str | None) -> dict[str, Any]:
    from transformers import AutoConfig

    try:
        return dict(AutoConfig.from_pretrained(name, revision=revision).to_dict())
    except (OSError, ValueError) as error:
        told = _by_the_hub(name, revision)
        raise BadModel(
            f"the configuration of {name} can't be read: {told.message if told else str(error).splitlines()[0]}",
            f"{told.hint}; or use a local folder with --model"
            if told and told.hint
            else "check the name, or use a local folder with --model",
        ) from None


def _by_the_hub(name: str, revision: str | None) -> CircuitTracerError | None:
    """Return why a model can't be downloaded from the hub, in one line; None if it can."""
    try:
        commit_of(name, revision)
    except CircuitTracerError as error:
        return error
    return None


def pinned(source: ModelSource) -> str | None:
    """Return the current commit of a model on the hub, so that all files come from one commit; None if unknown."""
    if source.folder is not None:
        return None
    try:
        return commit_of(source.name, source.revision)
    except CircuitTracerError:  # the loader reports these itself: an adapter without a model, missing files
        return None
