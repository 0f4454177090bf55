"""What a graph explains: the most likely tokens, given tokens, or directions in the output space (spec/attribution.md 2.5)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import torch
from torch import Tensor

from circuit_tracer_cli.attribution.target_texts import (
    DIFFERENCE,
    DirectionAt,
    FeatureAt,
    Placed,
    TokenAt,
    check_inside,
    name_of,
    placed,
    read_target,
)
from circuit_tracer_cli.errors import BadTarget, InvalidType, InvalidValue, UnsuitableTarget
from circuit_tracer_cli.tokens import TokenTexts
from circuit_tracer_cli.types import LogitTarget, TargetPlace

SMALLEST_WEIGHT = 1e-6
LIKELY, FAR_LIKELIER = 0.01, 10.0
"""Another spelling of a target is suggested if its probability is at least this, and this many times that of the given one."""


class CustomTarget(NamedTuple):
    """A direction in the space of the final norm's output.

    Args:
        token_str: Label.
        prob: Weight of the target in influence computations.
        vec: `(d_model)`, used as given: neither demeaned nor scaled.
    """

    token_str: str
    prob: float
    vec: Tensor


class _BadTargetType(BadTarget, InvalidType):
    """Raised for a target of the wrong type."""


@dataclass(frozen=True, slots=True)
class TokenReader:
    """Turns target strings into token ids, and ids into text.

    Args:
        tokenizer: The model's tokenizer, or None.
        n_logits: Size of the model's vocabulary.
    """

    tokenizer: Any
    n_logits: int
    texts: TokenTexts = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "texts", TokenTexts(self.tokenizer))

    def decode(self, token: int) -> str:
        """Return the token as it appears in text, or its number without a tokenizer."""
        return self.texts[token]

    def single_token(self, text: str, note: Callable[[str], None]) -> int:
        """Return the id of a target string: `id:N`, the token with exactly this text, else the one with a leading space.

        If neither exists (say, because the tokenizer lowers case), return the single token that the text is encoded to.
        """
        if text.startswith("id:"):
            return self._number(text)
        if self.tokenizer is None:
            raise UnsuitableTarget(f"target {text!r} needs a tokenizer", hint="give ids: id:123")
        try:
            text.encode("utf-8")
        except UnicodeEncodeError:
            raise UnsuitableTarget(
                f"target {text!r} contains a lone surrogate, which isn't a character",
                hint="give plain text, or id:N",
            ) from None
        tried: list[list[int]] = []
        for candidate in (text, " " + text):
            exact = self._exactly(candidate)
            if exact is not None:
                if candidate != text:
                    note(f"target {text!r} is read as {candidate!r} (token {exact})")
                return self._in_vocabulary(exact, text)
        for candidate in (text, " " + text):
            try:
                ids = list(self.tokenizer.encode(candidate, add_special_tokens=False))
            except (ValueError, TypeError, KeyError) as error:
                raise UnsuitableTarget(f"target {text!r} can't be tokenized: {error}") from error
            tried.append(ids)
            if len(ids) == 1 and not self._unknown(ids[0], candidate):
                note(f"target {text!r} is read as {self.decode(int(ids[0]))!r} (token {ids[0]})")
                return self._in_vocabulary(int(ids[0]), text)
        if not tried[0]:
            raise UnsuitableTarget(f"target {text!r} is empty once tokenized")
        if any(len(ids) == 1 for ids in tried):
            raise UnsuitableTarget(
                f"the tokenizer has no token for {text!r}", hint="use another target, or id:N"
            )
        raise UnsuitableTarget(
            f"target {text!r} is {len(tried[0])} tokens ({tried[0]}), but a target must be one token",
            hint="use a single token, or id:N",
        )

    def _exactly(self, text: str) -> int | None:
        """Return the token that appears as `text` in text, or None if the model has none."""
        try:
            token = self.texts.id_of(text)
        except (ValueError, TypeError, KeyError) as error:
            raise BadTarget(f"target {text!r} can't be tokenized: {error}") from error
        return None if token is None or self._unknown(token, text) else token

    def _unknown(self, token: int, text: str) -> bool:
        """True if a token only marks unknown text."""
        unknown = getattr(self.tokenizer, "unk_token_id", None)
        return (
            unknown is not None
            and token == unknown
            and text.strip() != getattr(self.tokenizer, "unk_token", None)
        )

    def other_spelling(self, text: str) -> tuple[str, int] | None:
        """Return the word with a leading space added or removed, and its id; None if that isn't a different single token."""
        other = text[1:] if text.startswith(" ") else f" {text}"
        if text.startswith("id:") or not other.strip():
            return None
        try:
            token = self.single_token(other, lambda message: None)
        except BadTarget:
            return None
        return (other, token) if self.decode(token) == other else None

    def difference(self, text: str, note: Callable[[str], None]) -> tuple[int, int]:
        """Return the two tokens of `A - B`. Raises BadTarget if one can't be used, or both are the same."""
        first, second = (self.single_token(part, note) for part in text.split(DIFFERENCE, 1))
        if first == second:
            raise UnsuitableTarget(
                f"target {text!r} is a token minus itself", hint="name two different tokens"
            )
        return first, second

    def check(self, texts: Sequence[str], note: Callable[[str], None] = lambda message: None) -> None:
        """Raise BadTarget for a target string that can't be used, before weights are read."""
        for text in texts:
            if (at := read_target(text)) is not None:
                if isinstance(at, TokenAt):
                    self.single_token(str(at.token), note)
            elif DIFFERENCE in text:
                self.difference(text, note)
            else:
                self.single_token(text, note)

    def _number(self, text: str) -> int:
        try:
            token = int(text[3:])
        except ValueError:
            raise UnsuitableTarget(
                f"target {text!r} has no number after 'id:'", hint="for example id:123"
            ) from None
        return self._in_vocabulary(token, text)

    def _in_vocabulary(self, token: int, text: str) -> int:
        if not 0 <= token < self.n_logits:
            raise UnsuitableTarget(
                f"target {text!r} is token {token}, outside the vocabulary of {self.n_logits}"
            )
        return token


MEAN_ELEMENTS = 2**26
"""Numbers of the unembedding that are averaged at once …"""

SMALLEST_MEAN = 256
"""… in a multiple of so many columns, which sums each in the same order as all columns together."""


@dataclass(frozen=True, slots=True)
class Unembedding:
    """Return the unembedding in the orientation `(vocab, d_model)`."""

    W_U: Tensor

    def vector(self, token: int) -> Tensor:
        """Return `u_k` in at least float32."""
        row = self.W_U[token]
        return row if row.dtype == torch.float64 else row.float()

    def mean(self) -> Tensor:
        """The mean over all unembedding vectors, some columns at a time: it may take a copy of what is averaged at once."""
        dtype = torch.promote_types(self.W_U.dtype, torch.float32)
        step = max(SMALLEST_MEAN, MEAN_ELEMENTS // len(self.W_U) // SMALLEST_MEAN * SMALLEST_MEAN)
        return torch.cat([columns.mean(0, dtype=dtype) for columns in self.W_U.split(step, 1)])


class AttributionTargets:
    """The targets of a graph.

    Attributes:
        logit_targets: Token string and vocabulary index of each; custom ones are numbered from the vocabulary size up.
        logit_probabilities: `(K)` softmax probability, or the weight of a custom target.
        logit_vectors: `(K, d_model)`; for tokens `u_k` minus the mean unembedding vector.
        vocab_size: The tokenizer's vocabulary size, which may differ from the number of logits.
        places: What each target is and where it stands.

    Args:
        attribution_targets: As for `attribute`.
        logits: `(vocab)`, at the last position.
        unembed_proj: The unembedding in either orientation.
        tokenizer: The model's, or None.
        max_n_logits, desired_logit_prob: As for `attribute`.
        note: Called with notes for the user.
        n_layers, n_pos: Layers of the model and tokens of the prompt.
        logits_at: Returns logits `(n, vocab)` at earlier positions of the prompt.
        encoders: Returns encoder rows `(n, d_model)` of features `(n, 3)`: layer, position, feature.

    Raises:
        BadTarget: A target can't be used (a ValueError), or has the wrong type (also a TypeError).
    """

    logit_targets: list[LogitTarget]
    logit_probabilities: Tensor
    logit_vectors: Tensor
    vocab_size: int
    kind: str
    places: list[TargetPlace]
    unembedding: Unembedding
    reader: TokenReader

    def __init__(
        self,
        attribution_targets: Any,
        logits: Tensor,
        unembed_proj: Tensor,
        tokenizer: Any,
        *,
        max_n_logits: int = 10,
        desired_logit_prob: float = 0.95,
        note: Callable[[str], None] = lambda message: None,
        n_layers: int = 0,
        n_pos: int = 1,
        logits_at: Callable[[Sequence[int]], Tensor] | None = None,
        encoders: Callable[[Tensor], Tensor] | None = None,
    ) -> None:
        self.n_layers, self.n_pos, self.logits_at, self.encoders = n_layers, n_pos, logits_at, encoders
        W_U = unembed_proj if unembed_proj.shape[0] == len(logits) else unembed_proj.T
        self.unembedding, self.reader = Unembedding(W_U), TokenReader(tokenizer, len(logits))
        self.vocab_size = int(getattr(tokenizer, "vocab_size", 0) or len(logits))
        probabilities = torch.softmax(logits.cpu().double(), dim=-1).to(torch.float32)
        if attribution_targets is None:
            ids = salient_ids(probabilities, max_n_logits, desired_logit_prob)
            self.kind = "salient logits"
            self._set_tokens(ids, probabilities)
        elif isinstance(attribution_targets, Tensor):
            self.kind = "specified logit targets"
            self._set_tokens(_checked_ids(attribution_targets, len(logits)), probabilities)
        elif wanted := placed(attribution_targets):
            at = [replace(one, position=self._position(one)) for one in wanted]
            self._set_tokens_at([one for one in at if isinstance(one, TokenAt)], probabilities, note)
            self._set_inside([one for one in at if not isinstance(one, TokenAt)], len(probabilities))
        else:
            self._set_sequence(attribution_targets, probabilities, note)

    def _set_sequence(self, given: Any, probabilities: Tensor, note: Callable[[str], None]) -> None:
        """Take strings or custom directions; a bare string is one target."""
        if isinstance(given, str):
            given = [given]
        if not isinstance(given, Sequence):
            raise _BadTargetType(
                f"targets must be a list, a tensor of ids or None, not {type(given).__name__}"
            )
        if not given:
            raise BadTarget(
                "the list of targets cannot be empty", hint="omit it to explain the most likely tokens"
            )
        kinds = {
            str if isinstance(item, str) else tuple if isinstance(item, tuple) else type(item)
            for item in given
        }
        if len(kinds) > 1:
            raise _BadTargetType(
                "token strings and custom directions can't be mixed", hint="trace them separately"
            )
        if kinds == {str}:
            self._set_strings(list(given), probabilities, note)
        elif kinds == {tuple}:
            self._set_custom([_checked_custom(item) for item in given], len(probabilities))
        else:
            raise _BadTargetType(
                f"a target must be a string or (token_str, prob, vec), not {kinds.pop().__name__}"
            )

    def _set_strings(self, texts: list[str], probabilities: Tensor, note: Callable[[str], None]) -> None:
        """Take tokens, or differences of two tokens, by name."""
        differences = [DIFFERENCE in text for text in texts]
        if not any(differences):
            self.kind = "specified logit targets"
            ids = [self.reader.single_token(text, note) for text in texts]
            for text, token in zip(texts, ids, strict=True):
                self._name_likelier_spelling(text, token, probabilities, note)
            self._set_tokens(torch.tensor(ids), probabilities)
            return
        if not all(differences):
            raise BadTarget("tokens and differences can't be mixed", hint="trace them separately")
        self._set_custom([self._difference(text, probabilities, note) for text in texts], len(probabilities))

    def _difference(self, text: str, probabilities: Tensor, note: Callable[[str], None]) -> CustomTarget:
        """`A - B`: direction `u_A − u_B`, weight `max(|p_A − p_B|, 1e-6)`."""
        a, b = self.reader.difference(text, note)
        for part, token in zip(text.split(DIFFERENCE, 1), (a, b), strict=True):
            self._name_likelier_spelling(part, token, probabilities, note)
        weight = max(abs(float(probabilities[a] - probabilities[b])), SMALLEST_WEIGHT)
        return CustomTarget(text, weight, self.unembedding.vector(a) - self.unembedding.vector(b))

    def _name_likelier_spelling(
        self, text: str, token: int, probabilities: Tensor, note: Callable[[str], None]
    ) -> None:
        """Add a note if the model expects the same word with or without a leading space."""
        other = self.reader.other_spelling(text)
        if other is None or other[1] == token:
            return
        here, there = float(probabilities[token]), float(probabilities[other[1]])
        if there >= LIKELY and there > FAR_LIKELIER * here:
            note(
                f"target {text!r} has probability {here:.2g}, but {other[0]!r} has {there:.2g}; "
                f'if you mean that: --target "{other[0]}"'
            )

    def _set_tokens(self, ids: Tensor, probabilities: Tensor) -> None:
        """Take vocabulary tokens, demeaned."""
        tokens = [int(token) for token in ids]
        mean = self.unembedding.mean()
        self.logit_targets = [LogitTarget(self.reader.decode(token), token) for token in tokens]
        self.logit_probabilities = probabilities[ids.to(probabilities.device)]
        self.logit_vectors = torch.stack([self.unembedding.vector(token) - mean for token in tokens])
        self.places = [TargetPlace("token", self.n_layers, self.n_pos - 1)] * len(tokens)

    def _set_tokens_at(
        self, wanted: list[TokenAt], probabilities: Tensor, note: Callable[[str], None]
    ) -> None:
        """Take tokens that follow different positions, each with its probability there."""
        if not wanted:
            return
        self.kind = "tokens at positions"
        positions = [one.position for one in wanted]
        known = {self.n_pos - 1: probabilities}
        earlier = sorted({*positions} - {*known})
        if earlier:
            assert self.logits_at is not None
            rows = torch.softmax(self.logits_at(earlier).cpu().double(), dim=-1).to(torch.float32)
            known |= zip(earlier, rows, strict=True)
        tokens = []
        for one, position in zip(wanted, positions, strict=True):
            text = f"id:{one.token}" if isinstance(one.token, int) else one.token
            tokens.append(self.reader.single_token(text, note))
            self._name_likelier_spelling(text, tokens[-1], known[position], note)
        self._set_tokens(torch.tensor(tokens), probabilities)
        self.logit_probabilities = torch.stack(
            [known[position][token] for position, token in zip(positions, tokens, strict=True)]
        )
        self.places = [TargetPlace("token", self.n_layers, position) for position in positions]

    def _set_inside(self, wanted: list[FeatureAt | DirectionAt], n_logits: int) -> None:
        """Take features, each by its encoder row, and directions; those have virtual vocabulary indices."""
        if not wanted:
            return
        self.kind = "features and directions"
        check_inside(wanted, self.n_layers, self.unembedding.W_U.shape[1])
        like, vectors = self.unembedding.vector(0), []
        for one in wanted:
            if isinstance(one, FeatureAt):
                assert self.encoders is not None
                vectors.append(self.encoders(torch.tensor([[one.layer, one.position, one.feature]]))[0])
            else:
                vectors.append(one.vector)
        self.logit_vectors = torch.stack([vector.to(like) for vector in vectors])
        self.logit_targets = [
            LogitTarget(name_of(one), one.feature if isinstance(one, FeatureAt) else n_logits + number)
            for number, one in enumerate(wanted)
        ]
        self.logit_probabilities = torch.tensor([one.weight for one in wanted], dtype=torch.float32)
        kinds = ("feature" if isinstance(one, FeatureAt) else "direction" for one in wanted)
        self.places = [
            TargetPlace(kind, one.layer, one.position) for kind, one in zip(kinds, wanted, strict=True)
        ]

    def _position(self, target: Placed) -> int:
        if not -self.n_pos <= target.position < self.n_pos:
            name = repr(target.token) if isinstance(target, TokenAt) else name_of(target)
            raise UnsuitableTarget(
                f"target {name} is at position {target.position}, outside the prompt of {self.n_pos} tokens",
                hint=f"positions go from 0 to {self.n_pos - 1}; -1 is the last",
            )
        return target.position % self.n_pos

    def _set_custom(self, targets: list[CustomTarget], n_logits: int) -> None:
        """Take directions as given; their vocabulary index is virtual."""
        self.kind = "custom attribution targets"
        d_model = self.unembedding.W_U.shape[1]
        for target in targets:
            if target.vec.shape != (d_model,):
                raise BadTarget(
                    f"target {target.token_str!r} has shape {tuple(target.vec.shape)}, not ({d_model},)"
                )
            if not (
                bool(torch.isfinite(target.vec).all())
                and target.prob == target.prob
                and abs(target.prob) < float("inf")
            ):
                raise BadTarget(f"target {target.token_str!r} has a value that is not a finite number")
        self.logit_targets = [LogitTarget(target.token_str, n_logits + i) for i, target in enumerate(targets)]
        self.logit_probabilities = torch.tensor([target.prob for target in targets], dtype=torch.float32)
        like = self.unembedding.vector(0)
        self.logit_vectors = torch.stack([target.vec.to(like) for target in targets])
        self.places = [TargetPlace("direction", self.n_layers, self.n_pos - 1)] * len(targets)

    def __len__(self) -> int:
        return len(self.logit_targets)

    def __repr__(self) -> str:
        shown = ", ".join(repr(target) for target in self.logit_targets[:3]) + (
            ", ..." if len(self) > 3 else ""
        )
        return f"AttributionTargets(n={len(self)}, targets=[{shown}])"

    @property
    def tokens(self) -> list[str]:
        """Return the token strings or labels."""
        return [target.token_str for target in self.logit_targets]

    @property
    def token_ids(self) -> Tensor:
        """Return the vocabulary indices, including virtual ones, int64 `(K)`."""
        ids = [target.vocab_idx for target in self.logit_targets]
        return torch.tensor(ids, dtype=torch.int64, device=self.logit_probabilities.device)

    @property
    def stored_places(self) -> list[TargetPlace] | None:
        """What a graph keeps of `places`: None where every target is read behind the last position, as in older files."""
        last = (self.n_layers, self.n_pos - 1)
        return None if all((one.layer, one.position) == last for one in self.places) else self.places

    def to(self, device: torch.device | str) -> AttributionTargets:
        """Move the two tensors; returns self."""
        self.logit_probabilities = self.logit_probabilities.to(device)
        self.logit_vectors = self.logit_vectors.to(device)
        return self


def completion_targets(n_prompt: int, tokens: Sequence[int]) -> list[TokenAt]:
    """Return the targets of a completion that follows a prompt of `n_prompt` tokens."""
    return [TokenAt(token, n_prompt - 1 + place) for place, token in enumerate(tokens)]


def salient_ids(probabilities: Tensor, max_n_logits: int, desired_logit_prob: float) -> Tensor:
    """Return the most likely tokens, up to `max_n_logits` or until their probabilities sum to `desired_logit_prob`."""
    if not 1 <= max_n_logits <= len(probabilities):
        raise InvalidValue(
            f"max_n_logits must be between 1 and the vocabulary size {len(probabilities)}, not {max_n_logits}"
        )
    if not 0 < desired_logit_prob <= 1:
        raise InvalidValue(
            f"desired_logit_prob must be greater than 0 and at most 1, not {desired_logit_prob}"
        )
    top, ids = torch.topk(probabilities, max_n_logits)
    reached = torch.nonzero(top.cumsum(0) >= desired_logit_prob)
    return ids[: int(reached[0]) + 1] if len(reached) else ids


def _checked_ids(ids: Tensor, n_logits: int) -> Tensor:
    if ids.dtype.is_floating_point or ids.dtype.is_complex or ids.dtype == torch.bool or ids.ndim > 1:
        raise _BadTargetType("target ids must be a one-dimensional tensor of integers")
    ids = ids.reshape(-1).to(torch.int64)
    if not len(ids):
        raise BadTarget(
            "the list of targets cannot be empty", hint="omit it to explain the most likely tokens"
        )
    invalid = ids[(ids < 0) | (ids >= n_logits)].tolist()
    if invalid:
        raise BadTarget(f"target ids {invalid} are outside the vocabulary of {n_logits}")
    return ids


def _checked_custom(item: tuple[Any, ...]) -> CustomTarget:
    if len(item) != 3:
        raise BadTarget(f"a custom target is (token_str, prob, vec), not {len(item)} values")
    token_str, prob, vec = item
    if not isinstance(token_str, str):
        raise _BadTargetType(f"the label of a custom target must be a string, not {type(token_str).__name__}")
    if isinstance(prob, bool) or not isinstance(prob, int | float):
        raise _BadTargetType(f"the weight of a custom target must be a number, not {type(prob).__name__}")
    if not isinstance(vec, Tensor):
        raise _BadTargetType(f"the direction of a custom target must be a tensor, not {type(vec).__name__}")
    return CustomTarget(token_str, float(prob), vec)
