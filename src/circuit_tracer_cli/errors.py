"""The errors that users can see. Each is one situation with one sentence and a hint on what to type next."""

from __future__ import annotations


class CircuitTracerError(Exception):
    """Raised when something can't be done. The command line prints it in one line and exits with `exit_code`.

    Args:
        message: What is wrong, in one sentence without a final period.
        hint: What to type or change next, if that is known.
    """

    exit_code = 1

    def __init__(self, message: str, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class UsageError(CircuitTracerError):
    """Raised if the command line or arguments are wrong, as far as can be judged without reading a file."""

    exit_code = 2


class InvalidValue(UsageError, ValueError):
    """Raised for an argument of the right type with an unusable value."""


class InvalidType(UsageError, TypeError):
    """Raised for an argument of the wrong type."""


class BadPrompt(InvalidValue):
    """Raised for a prompt that is empty, isn't text, or doesn't suit the model."""


class EmptyPrompt(BadPrompt):
    """Raised for a prompt without text."""


class BadTarget(InvalidValue):
    """Raised for an invalid attribution target, or one that the model doesn't have."""


class BadPromptFile(CircuitTracerError, ValueError):
    """Raised for an unusable line in a file of prompts."""


class BadIntervention(InvalidValue):
    """Raised for a feature edit with an unusable layer, position, feature or value."""


class Unsuitable(CircuitTracerError):
    """Raised for a well-formed value that doesn't suit the model, transcoders or file, after reading them."""

    exit_code = 1


class UnsuitableValue(Unsuitable, InvalidValue):
    """Raised for an argument that doesn't suit the model, the transcoders or the file."""


class UnsuitablePrompt(Unsuitable, BadPrompt):
    """Raised for a prompt that the model can't take: too long, no chat template, an id outside its vocabulary."""


class UnsuitableTarget(Unsuitable, BadTarget):
    """Raised if the target isn't a single token in the model's vocabulary."""


class BadPlan(Unsuitable, BadIntervention):
    """Raised for a malformed file of edits, or an unusable edit in one."""


class UnsuitableIntervention(Unsuitable, BadIntervention):
    """Raised for an edit of something that the model, set or prompt doesn't have."""


class MissingFile(CircuitTracerError, FileNotFoundError):
    """Raised for a named file or folder that doesn't exist or can't be read."""

    def __str__(self) -> str:
        return self.message


class OutputError(CircuitTracerError):
    """Raised if a result can't be written: no permission, disk full, exists as a folder."""


class BadGraphFile(CircuitTracerError, ValueError):
    """Raised for a graph file that is truncated, hostile or of an unknown kind."""


class BadCorpus(CircuitTracerError, ValueError):
    """Raised if the input for feature examples isn't text, or is empty."""


class BadFeatureFiles(CircuitTracerError, ValueError):
    """Raised if feature examples, or the saved state of their build, are damaged or belong to something else."""


class BadTranscoders(CircuitTracerError, ValueError):
    """Raised for a transcoder set that is incomplete, malformed or inconsistent."""


class UnknownFormat(BadTranscoders):
    """Raised if no loader recognizes the files of a transcoder set."""


class UnknownReference(MissingFile):
    """Raised for a transcoder reference that is neither a folder, a known name nor a repository."""


class AccessDenied(CircuitTracerError, PermissionError):
    """Raised if the hub refuses access to this user."""

    def __str__(self) -> str:
        return self.message


class HubUnavailable(CircuitTracerError, ConnectionError):
    """Raised if the hub can't be reached or answers with an error, and there is no local copy."""

    def __str__(self) -> str:
        return self.message


class BadModel(CircuitTracerError, ValueError):
    """Raised for a model folder that is missing, malformed, or can't be loaded."""


class UnsupportedArchitecture(BadModel):
    """Raised if the backend doesn't know the model's family, or one of its settings."""


class MissingExtra(CircuitTracerError, ImportError):
    """Raised if an optional package that is needed isn't installed."""

    def __str__(self) -> str:
        return self.message


class ModelMismatch(CircuitTracerError, ValueError):
    """Raised if model and transcoders don't match."""


class NoActiveFeatures(CircuitTracerError):
    """Raised if no feature is active on the prompt, so that there is nothing to trace."""


class OutOfMemory(CircuitTracerError):
    """Raised if the work doesn't fit in memory."""


class ServerError(CircuitTracerError):
    """Raised if the server can't start: port in use, unknown address."""
