"""The request for a trace: one record, validated as far as possible without reading a file. Imports no torch."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from circuit_tracer_cli.errors import BadTarget, EmptyPrompt, InvalidValue
from circuit_tracer_cli.types import PRECISIONS

DTYPES = {
    "float32": "float32",
    "fp32": "float32",
    "bfloat16": "bfloat16",
    "bf16": "bfloat16",
    "float16": "float16",
    "fp16": "float16",
}
OFFLOADS = {name: name for name in ("auto", "none", "cpu", "disk")}


@dataclass(frozen=True, slots=True, kw_only=True)
class TraceRequest:
    """Everything that decides what a trace reads, computes and keeps. `prepare` resolves it.

    Args:
        prompt: The text, or the user's message in a conversation; None if no prompt is traced (yet).
        transcoder_set: A reference, see `transcoders.references`.
        model: A folder or a name on the hub, `NAME@REVISION` for a branch, tag or commit; None for the set's own.
        dtype: Number type of model and transcoders; short names such as `bf16` are expanded.
        precision: Of the engine's matrix products, see `attribution.products`.
        device: `auto`, `cpu`, `cuda`, `cuda:1` or `mps`.
        device_map: Spreads layers over several devices, instead of `device`.
        backend: Name of the backend.
        targets: What to explain, as in `--target`; empty for the most likely tokens.
        completion: What follows the prompt; each of its tokens is explained at its own position, instead of `targets`.
        max_n_logits, desired_logit_prob: How many of the most likely tokens to explain.
        batch_size, update_interval, max_feature_nodes: How features are chosen, see `AttributionSettings`.
        offload: Where to move weights that aren't in use: `auto`, `none`, `cpu` or `disk`.
        lazy_encoder, lazy_decoder: Read them from disk as needed; None lets the plan decide.
        chat, system, prefill: Put the prompt into the tokenizer's chat template, with the turns around it.
        labels: Propose labels for the most influential features.
        offline: Download nothing.
        command: The command line to record in the graph.

    Raises:
        EmptyPrompt: The prompt is empty.
        BadTarget: Tokens and differences are mixed.
        InvalidValue: Another value is invalid for any model and transcoders.
    """

    prompt: str | None = None
    transcoder_set: str = "demo"
    model: str | None = None
    dtype: str = "float32"
    precision: str = "float32"
    device: str = "auto"
    device_map: str | None = None
    backend: str = "transformerlens"
    targets: tuple[str, ...] = ()
    completion: str | None = None
    max_n_logits: int = 10
    desired_logit_prob: float = 0.95
    batch_size: int = 256
    max_feature_nodes: int = 7500
    update_interval: int = 4
    offload: str = "auto"
    lazy_encoder: bool | None = None
    lazy_decoder: bool | None = None
    chat: bool = False
    system: str | None = None
    prefill: str | None = None
    labels: bool = True
    offline: bool = False
    command: str = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "dtype", _one_of("dtype", self.dtype, DTYPES))
        _one_of("precision", self.precision, dict.fromkeys(PRECISIONS, ""))
        object.__setattr__(self, "offload", _one_of("offload", self.offload.lower(), OFFLOADS))
        _check_prompt(self)
        _check_numbers(self)
        if self.device_map is not None and self.device != "auto":
            raise InvalidValue("--device and --device-map both place layers", "use one of them")
        plain = [one for one in self.targets if not one.startswith(("token:", "feature:", "direction:"))]
        if len({" - " in target for target in plain}) > 1:
            raise BadTarget("tokens and differences can't be mixed", "trace them separately")


def _one_of(what: str, value: str, known: dict[str, str]) -> str:
    if value not in known:
        raise InvalidValue(f"unknown {what} {value!r}", f"choose one of {', '.join(known)}")
    return known[value]


def _check_prompt(request: TraceRequest) -> None:
    if request.prompt is not None and not request.prompt.strip():
        raise EmptyPrompt("the prompt is empty", 'for example --prompt "The capital of France is"')
    if request.completion is not None:
        if not request.completion:
            raise EmptyPrompt("the completion is empty", 'for example --completion " Austin, Texas"')
        if request.targets:
            raise InvalidValue("--completion and --target both say what to explain", "use one of them")
    if not request.chat and (request.system is not None or request.prefill is not None):
        raise InvalidValue("--system and --prefill need --chat", "add --chat")


def _check_numbers(request: TraceRequest) -> None:
    for name in ("max_n_logits", "batch_size", "update_interval"):
        if getattr(request, name) < 1:
            raise InvalidValue(f"{name} must be at least 1, not {getattr(request, name)}")
    if request.max_feature_nodes < 0:
        raise InvalidValue(f"max_feature_nodes must be 0 or more, not {request.max_feature_nodes}")
    probability = request.desired_logit_prob
    if not (math.isfinite(probability) and 0 < probability <= 1):
        raise InvalidValue(f"desired_logit_prob must be greater than 0 and at most 1, not {probability}")


@contextmanager
def offline_mode(offline: bool) -> Iterator[None]:
    """Keep the hub's client off the network if requested. Call it before the client is imported, or it has no effect."""
    names = ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE") if offline else ()
    before = {name: os.environ.get(name) for name in names}
    os.environ.update(dict.fromkeys(names, "1"))
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
