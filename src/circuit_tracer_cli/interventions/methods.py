"""The three public calls of a replacement model, with the reference's arguments."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from torch import Tensor

from circuit_tracer_cli.errors import InvalidType, InvalidValue
from circuit_tracer_cli.interventions.generate import Sampling, generate
from circuit_tracer_cli.interventions.passes import Recording
from circuit_tracer_cli.interventions.run import Constraints, Interventions
from circuit_tracer_cli.interventions.spec import as_interventions
from circuit_tracer_cli.tokens import Tokens

IGNORED = ("verbose", "padding_side", "prepend_bos")
"""Arguments of the reference's generation that mean nothing here: one prompt, tokenised by one rule, without a progress bar."""

RETURN_TYPES = ("input", "str", "tokens", "tensor")


def generate_call(
    model: Interventions,
    inputs: str | Tensor | Sequence[int],
    tokens: Tokens,
    interventions: Iterable[Any],
    constraints: Constraints,
    recording: Recording | None,
    options: dict[str, Any],
) -> tuple[Any, Tensor, Tensor | None]:
    """Text (or ids, if ids came in), logits `(step, vocab)` and activations `(layer, pos + step - 1, feature)`."""
    options = dict(options)
    return_type = options.pop("return_type", "input")
    if return_type not in RETURN_TYPES:
        raise InvalidValue(
            f"unknown return_type {return_type!r}", hint=f"choose one of {', '.join(RETURN_TYPES)}"
        )
    sampling = sampling_from(options, model.backend.tokenizer)
    result = generate(model, tokens, as_interventions(interventions), constraints, sampling, recording)
    wants_text = return_type == "str" or (return_type == "input" and isinstance(inputs, str))
    if wants_text:
        text = str(model.backend.tokenizer.decode(result.ids.tolist(), skip_special_tokens=True))
        return text, result.logits, result.activations
    batched = isinstance(inputs, Tensor) and inputs.ndim == 2
    return (result.ids[None] if batched else result.ids), result.logits, result.activations


def sampling_from(options: dict[str, Any], tokenizer: Any) -> Sampling:
    """The sampling that keyword arguments mean. Raises InvalidType for an unknown one, InvalidValue without a cache."""
    options = {name: value for name, value in options.items() if name not in IGNORED}
    if not options.pop("use_past_kv_cache", True) or not options.pop("use_cache", True):
        raise InvalidValue(
            "generation with edits always uses the key-value cache", hint="leave use_past_kv_cache out"
        )
    ends = options.pop("eos_token_id", None)
    if ends is None:
        ends = getattr(tokenizer, "eos_token_id", None)
    stops = options.pop("stop_at_eos", True) and ends is not None
    known = set(Sampling.__dataclass_fields__) - {"stop_at"}
    unknown = sorted(set(options) - known)
    if unknown:
        raise InvalidType(
            f"unknown generation argument {unknown[0]!r}", hint=f"known are {', '.join(sorted(known))}"
        )
    stop_at = () if not stops else tuple(ends) if isinstance(ends, list | tuple | set) else (int(ends),)
    return Sampling(**options, stop_at=stop_at)
