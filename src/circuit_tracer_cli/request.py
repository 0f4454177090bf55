"""What a trace is asked for: one record that is right as far as it can be judged without reading a file. Imports no torch."""

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
    """Everything that decides what a trace reads, computes and keeps. `prepare` finds out what it means.

    Args:
        prompt: The text, or the user's message in a conversation; None where no prompt is traced (yet).
        transcoder_set: A reference, see `transcoders.references`.
        model: A folder or a name on the hub, `NAME@REVISION` for a branch, tag or commit; None for the set's own.
        dtype: Of model and transcoders; short names such as `bf16` are spelled out.
        precision: Of the engine's matrix products, see `attribution.products`.
        device: `auto`, `cpu`, `cuda`, `cuda:1` or `mps`.
        device_map: Layers on several devices, instead of `device`.
        backend: Name of the backend.
        targets: What to explain, as `--target`; empty for the likeliest tokens.
        max_n_logits, desired_logit_prob: How many of the likeliest.
        batch_size, update_interval, max_feature_nodes: How features are chosen, see `AttributionSettings`.
        offload: Where weights wait that aren't in use: `auto`, `none`, `cpu` or `disk`.
        lazy_encoder, lazy_decoder: Leave them in their files; None lets the plan decide.
        chat, system, prefill: Put the prompt into the tokenizer's chat template, with the turns around it.
        labels: Propose labels for the most influential features.
        offline: Download nothing.
        command: The command line to keep with the graph.

    Raises:
        EmptyPrompt: The prompt is empty.
        BadTarget: Tokens and differences are mixed.
        InvalidValue: Another value can't be used, whatever model and transcoders are.
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
            raise InvalidValue("--device and --device-map both say where layers lie", "leave one of them out")
        if len({" - " in target for target in self.targets}) > 1:
            raise BadTarget("tokens and differences can't be mixed", "trace them one after the other")


def _one_of(what: str, value: str, known: dict[str, str]) -> str:
    if value not in known:
        raise InvalidValue(f"unknown {what} {value!r}", f"choose one of {', '.join(known)}")
    return known[value]


def _check_prompt(request: TraceRequest) -> None:
    if request.prompt is not None and not request.prompt.strip():
        raise EmptyPrompt("the prompt is empty", 'for example --prompt "The capital of France is"')
    if not request.chat and (request.system is not None or request.prefill is not None):
        raise InvalidValue("--system and --prefill are parts of a conversation", "add --chat")


def _check_numbers(request: TraceRequest) -> None:
    for name in ("max_n_logits", "batch_size", "update_interval"):
        if getattr(request, name) < 1:
            raise InvalidValue(f"{name} must be at least 1, not {getattr(request, name)}")
    if request.max_feature_nodes < 0:
        raise InvalidValue(f"max_feature_nodes must not be negative: {request.max_feature_nodes}")
    probability = request.desired_logit_prob
    if not (math.isfinite(probability) and 0 < probability <= 1):
        raise InvalidValue(f"desired_logit_prob must lie in (0, 1], not {probability}")


@contextmanager
def offline_mode(offline: bool) -> Iterator[None]:
    """Keep the hub's client from the network when asked to. Set before it is imported, or it won't notice."""
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
