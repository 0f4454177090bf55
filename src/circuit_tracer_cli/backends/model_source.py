"""What a model name means: a folder here, or a model of the hub at one of its revisions. Imports no torch."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from circuit_tracer_cli.backends.model_config import read_config
from circuit_tracer_cli.errors import BadModel, CircuitTracerError
from circuit_tracer_cli.hub import commit_of


@dataclass(frozen=True, slots=True)
class ModelSource:
    """A model that isn't loaded.

    Attributes:
        name: Its folder, or its name on the hub; what Hugging Face's loaders take.
        revision: Branch, tag or commit on the hub; None for the main branch, and for folders.
        folder: Where its files are, if it is a folder.
    """

    name: str
    revision: str | None = None
    folder: Path | None = None

    def config(self) -> dict[str, Any]:
        """Its configuration, fetched if it is on the hub. Raises BadModel."""
        return read_config(self.folder) if self.folder is not None else _fetched(self.name, self.revision)

    def __str__(self) -> str:
        return f"{self.name}@{self.revision}" if self.revision else self.name


def find_model(name: str) -> ModelSource:
    """The model behind a name: `demo`, a folder, or `USER/NAME[@REVISION]` on the hub.

    A folder that exists comes before a model of the hub. Asks no network.

    Raises:
        BadModel: It is written as a path, and there is no such folder; or it's no name at all.
    """
    if name == "demo":
        from circuit_tracer_cli.demo import model_dir

        return ModelSource(str(model_dir()), folder=model_dir())
    folder = Path(name).expanduser()
    if folder.is_dir():
        return ModelSource(str(folder), folder=folder)
    repo, at, revision = name.partition("@")
    if folder.is_absolute() or name.startswith((".", "~")) or repo.count("/") > 1:
        raise BadModel(f"there is no model folder {name}", "check the path given with --model")
    if not repo or (at and not revision):
        raise BadModel(
            f"{name!r} is neither a folder nor a model of the hub", "for example user/name@revision"
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
            f"{told.hint}; or give a local folder with --model"
            if told and told.hint
            else "check the name, or give a local folder with --model",
        ) from None


def _by_the_hub(name: str, revision: str | None) -> CircuitTracerError | None:
    """Return why a model of the hub can't be had, which Hugging Face's loaders say in a page of guesses; None if it can."""
    try:
        commit_of(name, revision)
    except CircuitTracerError as error:
        return error
    return None


def pinned(source: ModelSource) -> str | None:
    """Return the commit that a model of the hub is at, for all its files to come from one; None where that can't be told."""
    if source.folder is not None:
        return None
    try:
        return commit_of(source.name, source.revision)
    except (
        CircuitTracerError
    ):  # the loader says it in its own order: an adapter without a model, files that aren't there
        return None
