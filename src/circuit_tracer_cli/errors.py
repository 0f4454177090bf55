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
    """The prompt is empty, too long, or can't be tokenised."""


class BadTarget(InvalidValue):
    """An attribution target can't be understood."""


class BadIntervention(InvalidValue):
    """A feature edit names a layer, position, feature or value that can't be used."""


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
