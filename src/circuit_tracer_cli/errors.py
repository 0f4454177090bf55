"""The errors a user can meet. Each is one situation, one sentence, and what to type next."""

from __future__ import annotations


class CircuitTracerError(Exception):
    """Something could not be done. The command line prints it in one line and exits with `exit_code`.

    Args:
        message: What is wrong, in one sentence without a full stop at the end.
        hint: What to type or change next, if anything can be said.
    """

    exit_code = 1

    def __init__(self, message: str, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class UsageError(CircuitTracerError):
    """The command line or a call's arguments are wrong, as far as it can be judged without reading a file."""

    exit_code = 2


class InvalidValue(UsageError, ValueError):
    """An argument has the right type and a value that can't be used."""


class InvalidType(UsageError, TypeError):
    """An argument has the wrong type."""


class BadPrompt(InvalidValue):
    """The prompt is empty, isn't text, or isn't one that this model takes."""


class EmptyPrompt(BadPrompt):
    """There is no text in the prompt."""


class BadTarget(InvalidValue):
    """An attribution target can't be understood, or isn't one that this model has."""


class BadPromptFile(CircuitTracerError, ValueError):
    """A line of a file of prompts can't be used."""


class BadIntervention(InvalidValue):
    """A feature edit names a layer, position, feature or value that can't be used."""


class Unsuitable(CircuitTracerError):
    """A value is well formed, but not one for this model, these transcoders or this file; judged after reading them."""

    exit_code = 1


class UnsuitableValue(Unsuitable, InvalidValue):
    """An argument doesn't fit the model, the transcoders or the file that it is for."""


class UnsuitablePrompt(Unsuitable, BadPrompt):
    """The model can't take the prompt: too long, without a chat template, an id outside its vocabulary."""


class UnsuitableTarget(Unsuitable, BadTarget):
    """The model's vocabulary doesn't have the target as one token."""


class BadPlan(Unsuitable, BadIntervention):
    """A file of edits is malformed, or names an edit that can't be used."""


class UnsuitableIntervention(Unsuitable, BadIntervention):
    """An edit addresses what this model, set or prompt doesn't have."""


class MissingFile(CircuitTracerError, FileNotFoundError):
    """A file or folder that was named doesn't exist or can't be read."""

    def __str__(self) -> str:
        return self.message


class OutputError(CircuitTracerError):
    """A result can't be written: no permission, disk full, exists as a folder."""


class BadGraphFile(CircuitTracerError, ValueError):
    """A graph file is truncated, hostile or of an unknown kind."""


class BadCorpus(CircuitTracerError, ValueError):
    """The text to build feature examples from can't be read as text, or holds none."""


class BadFeatureFiles(CircuitTracerError, ValueError):
    """Feature examples, or the saved state of their build, are damaged or belong to something else."""


class BadTranscoders(CircuitTracerError, ValueError):
    """A transcoder set is incomplete, malformed or doesn't agree with itself."""


class UnknownFormat(BadTranscoders):
    """No loader recognises the files of a transcoder set."""


class UnknownReference(MissingFile):
    """A transcoder reference is neither a folder, a known name nor a repository."""


class AccessDenied(CircuitTracerError, PermissionError):
    """The hub has it, and doesn't give it to this user."""

    def __str__(self) -> str:
        return self.message


class HubUnavailable(CircuitTracerError, ConnectionError):
    """The hub can't be reached, or answers with an error, and what is wanted isn't here."""

    def __str__(self) -> str:
        return self.message


class BadModel(CircuitTracerError, ValueError):
    """A model folder is missing, malformed, or can't be loaded."""


class UnsupportedArchitecture(BadModel):
    """The model's family, or one of its settings, isn't known to the backend."""


class MissingExtra(CircuitTracerError, ImportError):
    """A package that is only needed for this isn't installed."""

    def __str__(self) -> str:
        return self.message


class ModelMismatch(CircuitTracerError, ValueError):
    """Model and transcoders don't belong together."""


class NoActiveFeatures(CircuitTracerError):
    """Not one feature is active on the prompt, so there is nothing to trace."""


class OutOfMemory(CircuitTracerError):
    """The work doesn't fit the memory that is there."""


class ServerError(CircuitTracerError):
    """The server can't start: port taken, address unknown."""
