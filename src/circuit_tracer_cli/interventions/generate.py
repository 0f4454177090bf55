"""Generation with edits, token by token, and the public calls of a replacement model with the reference's arguments."""

from __future__ import annotations

from collections.abc import Collection, Generator, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from circuit_tracer_cli.errors import InvalidType, InvalidValue, UnsuitablePrompt
from circuit_tracer_cli.interventions.cells import at_generated, resolve
from circuit_tracer_cli.interventions.heads import heads_at_generated
from circuit_tracer_cli.interventions.passes import EditedPass, Recording
from circuit_tracer_cli.interventions.run import Constraints, Interventions
from circuit_tracer_cli.interventions.spec import AnyEdit, Intervention, as_interventions
from circuit_tracer_cli.tokens import Tokens


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampling:
    """How tokens are sampled.

    Args:
        max_new_tokens: Largest number of tokens to generate.
        do_sample: Sample from the probabilities; otherwise take the most likely token.
        temperature: Divides logits before sampling; 0 takes the most likely token.
        top_k: Sample from this many of the most likely tokens.
        top_p: Sample from the most likely tokens that together have this probability.
        freq_penalty: Subtracted from a token's logit for each of its occurrences in the text so far.
        stop_at: Tokens that end the generation.
        seed: Sampling seed; None uses torch's own generator.
    """

    max_new_tokens: int = 10
    do_sample: bool = True
    temperature: float = 1.0
    top_k: int | None = None
    top_p: float | None = None
    freq_penalty: float = 0.0
    stop_at: Collection[int] = ()
    seed: int | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "stop_at", tuple(self.stop_at))  # makes the record hashable
        for name in ("max_new_tokens", "top_k"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise InvalidValue(f"{name} must be at least 1, not {value}")
        if self.top_p is not None and not 0 < self.top_p <= 1:
            raise InvalidValue(f"top_p must be greater than 0 and at most 1, not {self.top_p}")
        if not self.temperature >= 0:
            raise InvalidValue(f"temperature must be 0 or more, not {self.temperature}")

    def generator(self, device: torch.device) -> torch.Generator | None:
        """The source of randomness."""
        return None if self.seed is None else torch.Generator(device).manual_seed(self.seed)


@dataclass(frozen=True, slots=True)
class Generation:
    """A text with its continuation."""

    ids: Tensor  # (pos + step) int64, including the last generated token
    logits: Tensor  # (step, vocab), each from which a token was chosen
    activations: Tensor | None  # (layer, pos + step - 1, feature)


@dataclass(frozen=True, slots=True)
class Step:
    """One generated token."""

    token: int
    logits: Tensor  # (vocab), from which it was chosen
    activations: Tensor | None  # (layer, pos, feature) of the pass that gave the logits


def stop_tokens(tokenizer: Any) -> tuple[int, ...]:
    """The tokenizer's end tokens; empty without a tokenizer or end tokens."""
    end = getattr(tokenizer, "eos_token_id", None)
    return () if end is None else (int(end),)


def choose(logits: Tensor, seen: Tensor, sampling: Sampling, generator: torch.Generator | None) -> int:
    """The next token from `logits (vocab)`, after the text `seen (pos)`."""
    if not sampling.do_sample or sampling.temperature == 0:
        return int(logits.argmax())
    scores = logits.float() / sampling.temperature
    if sampling.freq_penalty:
        scores = scores - sampling.freq_penalty * torch.bincount(seen, minlength=len(scores)).to(scores)
    if sampling.top_k is not None and sampling.top_k < len(scores):
        least = scores.topk(sampling.top_k).values[-1]
        scores = scores.masked_fill(scores < least, -torch.inf)
    if sampling.top_p is not None:
        ordered, order = scores.sort(descending=True)
        probabilities = ordered.softmax(0)
        # A token stays if those before it don't reach the probability yet, so the most likely one always stays.
        dropped = probabilities.cumsum(0) - probabilities >= sampling.top_p
        scores = scores.index_fill(0, order[dropped], -torch.inf)
    return int(torch.multinomial(scores.softmax(0), 1, generator=generator))


def generate_steps(
    model: Interventions,
    tokens: Tokens,
    edits: Sequence[AnyEdit],
    constraints: Constraints,
    sampling: Sampling,
    recording: Recording | None = None,
) -> Generator[Step, None, None]:
    """Yield the tokens one by one; closing the generator ends the generation and frees its cache.

    The prompt's pass has all edits and constraints; each later pass has only the open-ended edits, without constraints.

    Raises:
        BadIntervention: An edit doesn't fit the prompt, or an open-ended one doesn't fit a single token.
        BadPrompt: Prompt and continuation are too long for the model.
    """
    n_prompt, n_ctx = len(tokens), model.backend.shape.n_ctx
    if n_prompt + sampling.max_new_tokens - 1 > n_ctx:
        raise UnsuitablePrompt(
            f"{n_prompt} tokens and {sampling.max_new_tokens} new ones exceed the model's limit of {n_ctx}",
            hint=f"generate at most {n_ctx - n_prompt + 1}",
        )
    switch = model.backend.shape.rope_switch
    if switch is not None and n_prompt <= switch < n_prompt + sampling.max_new_tokens - 1:
        raise UnsuitablePrompt(
            f"above {switch} tokens this model rotates all keys by other factors (longrope), so a text of {n_prompt} "
            f"tokens can't be continued by {sampling.max_new_tokens}",
            hint=f"generate at most {switch - n_prompt + 1}",
        )
    open_ended = [edit for edit in edits if edit.open_ended]
    alone = [Intervention(e.layer, 0, e.feature, e.value) for e in open_ended if isinstance(e, Intervention)]
    resolve(alone, 1, model.transcoders)
    result = model.run(tokens, edits, constraints, recording, with_cache=True)
    ids, generator = tokens.ids, sampling.generator(tokens.ids.device)
    for count in range(1, sampling.max_new_tokens + 1):
        token = choose(result.logits[-1], ids, sampling, generator)
        yield Step(token, result.logits[-1], result.activations)
        if token in sampling.stop_at or count == sampling.max_new_tokens:
            return
        ids = torch.cat([ids, ids.new_tensor([token])])
        cells = resolve(at_generated(open_ended, len(ids) - 1, n_prompt), 1, model.transcoders)
        heads = heads_at_generated(open_ended, len(ids) - 1, n_prompt)
        edited = EditedPass(model.site, cells, pins=None, original=None, recording=recording, heads=heads)
        result = model.finish(edited, ids[-1:], result.cache)


def generate(
    model: Interventions,
    tokens: Tokens,
    edits: Sequence[AnyEdit],
    constraints: Constraints,
    sampling: Sampling,
    recording: Recording | None = None,
) -> Generation:
    """The full continuation; see `generate_steps`."""
    steps = list(generate_steps(model, tokens, edits, constraints, sampling, recording))
    activations = [step.activations for step in steps if step.activations is not None]
    joined = torch.cat(activations, dim=1) if activations else None
    return Generation(
        ids=torch.cat([tokens.ids, tokens.ids.new_tensor([step.token for step in steps])]),
        logits=torch.stack([step.logits for step in steps]),
        activations=joined.coalesce() if joined is not None and joined.is_sparse else joined,
    )


IGNORED = ("verbose", "padding_side", "prepend_bos")
"""Arguments of the reference's generation that have no effect here: one prompt, tokenized by one rule, without a progress bar."""

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
    """The sampling settings in keyword arguments. Raises InvalidType for an unknown one, InvalidValue without a cache."""
    options = {name: value for name, value in options.items() if name not in IGNORED}
    if not options.pop("use_past_kv_cache", True) or not options.pop("use_cache", True):
        raise InvalidValue(
            "generation with edits always uses the key-value cache", hint="omit use_past_kv_cache"
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
