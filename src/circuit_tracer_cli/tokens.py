"""Turn a prompt into token ids, and decide at which positions no feature can be active."""

from __future__ import annotations

import contextlib
import functools
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from circuit_tracer_cli.errors import BadPrompt, EmptyPrompt, InvalidType, UnsuitablePrompt

# <bos><start_of_turn>user\n: features of an instruction-tuned Gemma 3 on it say nothing about the prompt.
_GEMMA3_PREFIX = (2, 105, 2364, 107)
_MOST_NAMED = 6
_BYTE_TOKEN = re.compile(r"<0x([0-9A-Fa-f]{2})>")
_SPACE = "\u2581"  # how SentencePiece spells a space


@dataclass(frozen=True, slots=True)
class Tokens:
    """A tokenized prompt, including the special first token."""

    ids: Tensor  # (pos) int64
    strings: tuple[str, ...]  # (pos), each token as it appears in text
    text: str  # all tokens decoded together
    zero_positions: range  # where activations and errors count as zero
    notes: tuple[str, ...] = ()  # notes for the user about its tokenization

    def __len__(self) -> int:
        return len(self.ids)


class TokenTexts(dict[int, str]):
    """Return each token as it appears in text, so that no two different tokens look the same.

    A SentencePiece token keeps its leading space, which decoding it alone would drop. Bytes that aren't a full character are
    written `\\xHH`. A token without text, such as an id beyond the tokenizer's vocabulary, is `⟨id⟩`.

    Args:
        tokenizer: A Hugging Face tokenizer; with None, tokens are written as numbers.
    """

    def __init__(self, tokenizer: Any) -> None:
        super().__init__()
        self._tokenizer = tokenizer
        self._byte_of = _byte_alphabet()

    def __missing__(self, token: int) -> str:
        self[token] = self._text(token) or f"⟨{token}⟩"
        return self[token]

    def of(self, tokens: Sequence[int]) -> list[str]:
        """Return the texts of several tokens."""
        return [self[token] for token in tokens]

    def id_of(self, text: str) -> int | None:
        """Return the one token that appears as `text` in text, or None."""
        if self._tokenizer is None:
            return None
        encoded = self._tokenizer.encode(text, add_special_tokens=False)
        candidates = list(encoded) if len(encoded) == 1 else []
        if (look_up := getattr(self._tokenizer, "convert_tokens_to_ids", None)) is not None:
            spelled = look_up(text.replace(" ", _SPACE))
            candidates += [spelled] if isinstance(spelled, int) else []
        return next((int(token) for token in candidates if self[token] == text), None)

    def _text(self, token: int) -> str:
        if self._tokenizer is None:
            return ""
        try:
            text = str(self._tokenizer.decode([token]))
            spelled = getattr(self._tokenizer, "convert_ids_to_tokens", None)
            spelling = text if spelled is None else spelled(token)
        except (IndexError, KeyError, OverflowError):
            return ""
        if spelling is None:
            return ""
        if "\ufffd" in text:
            return self._escaped(str(spelling), text)
        whole = str(spelling).replace(_SPACE, " ")
        return whole if whole != text and whole.removeprefix(" ") == text else text

    def _escaped(self, spelling: str, text: str) -> str:
        """Return the token's bytes, if the tokenizer's own spelling gives them."""
        single = _BYTE_TOKEN.fullmatch(spelling)
        if single:
            return f"\\x{single[1].lower()}"
        if not all(character in self._byte_of for character in spelling):
            return text
        return bytes(self._byte_of[character] for character in spelling).decode("utf-8", "backslashreplace")


def _byte_alphabet() -> dict[str, int]:
    """Return how byte-level tokenizers spell bytes: printable Latin-1 as itself, the others in order from U+0100."""
    printable = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    others = (byte for byte in range(256) if byte not in printable)
    return {chr(byte): byte for byte in printable} | {chr(0x100 + n): byte for n, byte in enumerate(others)}


def ensure_tokenized(
    prompt: str | Tensor | Sequence[int],
    tokenizer: Any,
    *,
    model_name: str = "",
    device: torch.device | str = "cpu",
    d_vocab: int | None = None,
    n_ctx: int | None = None,
) -> Tokens:
    """Return the ids of a prompt, with a special token put first unless one is there.

    Text is tokenized without the special tokens that the tokenizer would add, so that text with and without a
    written BOS gives the same ids. The token put first is BOS, else padding, else EOS, else any other
    special token except the one for unknown words. If the tokenizer has none, the ids are left unchanged and a note
    says so.
    Position 0 is always zeroed. In a conversation that is written in the tokenizer's own chat template, the positions that
    all conversations share at the beginning are zeroed (`chat_prefix`); an instruction-tuned Gemma 3 takes only
    conversations.

    Args:
        prompt: Text, or ids: a list, or a tensor with at most one axis longer than 1.
        tokenizer: A Hugging Face tokenizer; None to use ids as they are.
        model_name: The model's name, used to recognize Gemma 3.
        device: Device of the ids.
        d_vocab: Size of the model's vocabulary; by default the tokenizer's length.
        n_ctx: Length in tokens of the longest prompt that the model takes.

    Raises:
        BadPrompt: It is empty, too long, or contains an id outside the vocabulary.
        InvalidType: It is neither text nor ids.
    """
    if tokenizer is None and (d_vocab is None or isinstance(prompt, str)):
        raise BadPrompt("there is no tokenizer for this prompt", hint="give token ids")
    d_vocab = len(tokenizer) if d_vocab is None else d_vocab
    given = _text_ids(prompt, tokenizer) if isinstance(prompt, str) else _given_ids(prompt)
    strangers = _unknown_words(prompt, given, tokenizer) if isinstance(prompt, str) else ()
    if not given:
        raise EmptyPrompt("the prompt is empty")
    _check_vocabulary(given, d_vocab)
    ids, zeroed, notes = _with_prefix(given, tokenizer, model_name, d_vocab)
    if n_ctx is not None and len(ids) > n_ctx:
        raise UnsuitablePrompt(
            f"the prompt has {len(ids)} tokens, but the model takes at most {n_ctx}", hint="shorten it"
        )
    return Tokens(
        ids=torch.tensor(ids, dtype=torch.int64, device=device),
        strings=tuple(TokenTexts(tokenizer).of(ids)),
        text=_text(ids, tokenizer),
        zero_positions=zeroed,
        notes=(*notes, *strangers),
    )


def completed(
    tokens: Tokens,
    completion: str | Sequence[int],
    tokenizer: Any,
    tokenize: Callable[[list[int]], Tokens],
) -> tuple[Tokens, list[int]]:
    """Return a prompt with all but the last token of a completion behind it, and the completion's tokens.

    Args:
        tokens: The prompt.
        completion: Text as it follows the prompt, with the space that a word has in text; or ids.
        tokenizer: A Hugging Face tokenizer; None if ids are given.
        tokenize: Makes a prompt of ids.

    Raises:
        BadPrompt: The completion is empty or the prompt is too long with it, or the two join in one token.
    """
    ids = tokens.ids.tolist()
    if not isinstance(completion, str):
        follow = _given_ids(completion)
    elif tokenizer is None:
        raise BadPrompt("there is no tokenizer for this completion", hint="give token ids")
    else:
        together = _text_ids(tokens.text + completion, tokenizer)
        if together[: len(ids)] != ids:
            raise UnsuitablePrompt(
                f"the completion {completion!r} merges with the prompt's last token {tokens.strings[-1]!r}",
                hint="start the completion with a space, or end the prompt between two words",
            )
        follow = together[len(ids) :]
    if not follow:
        raise EmptyPrompt("the completion is empty")
    whole = tokenize([*ids, *follow[:-1]])
    if whole.ids.tolist()[: len(ids)] != ids:
        raise UnsuitablePrompt("the completion changes the tokens of the prompt")
    return replace(whole, notes=(*tokens.notes, *(n for n in whole.notes if n not in tokens.notes))), follow


def _unknown_words(text: str, ids: Sequence[int], tokenizer: Any) -> tuple[str, ...]:
    """Return a note that lists the parts of a text without a token, if there are any."""
    unknown = _unknown_id(tokenizer)
    if unknown is None or unknown not in ids:
        return ()
    named: list[str] = []
    if getattr(tokenizer, "is_fast", False):
        spans = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)["offset_mapping"]
        pieces = (
            text[start:end].strip()
            for token, (start, end) in zip(ids, spans, strict=True)
            if token == unknown
        )
        named = list(dict.fromkeys(piece for piece in pieces if piece != tokenizer.unk_token))
        if not named:
            return ()  # the user wrote them
    words = ", ".join(repr(word) for word in named[:_MOST_NAMED]) + (
        ", …" if len(named) > _MOST_NAMED else ""
    )
    return (
        f"the model has no token for {words or 'parts of the prompt'}: it sees {tokenizer.unk_token} instead",
    )


def _unknown_id(tokenizer: Any) -> int | None:
    """Return the token for unknown text, unless it also begins, ends or pads texts."""
    unknown = getattr(tokenizer, "unk_token_id", None)
    others = (
        (tokenizer.bos_token_id, tokenizer.pad_token_id, tokenizer.eos_token_id)
        if tokenizer is not None
        else ()
    )
    return None if unknown in others else unknown


def _text(ids: list[int], tokenizer: Any) -> str:
    """Return the ids as text; numbers in brackets without a tokenizer."""
    return "".join(f"⟨{token}⟩" for token in ids) if tokenizer is None else str(tokenizer.decode(ids))


def chat_text(tokenizer: Any, prompt: str, system: str | None = None, prefill: str | None = None) -> str:
    """Return the prompt as a user's message in the tokenizer's chat template, up to where the assistant answers.

    Args:
        tokenizer: A Hugging Face tokenizer with a chat template.
        prompt: The user's message.
        system: A system message before it.
        prefill: The beginning of the assistant's answer.

    Raises:
        BadPrompt: There is no template, or it refuses these messages (many don't support a system message).
    """
    from jinja2 import TemplateError

    if not getattr(tokenizer, "chat_template", None):
        raise UnsuitablePrompt(
            "the tokenizer has no chat template", hint="omit --chat and write the prompt in full"
        )
    messages = [{"role": "user", "content": prompt}]
    if system is not None:
        messages.insert(0, {"role": "system", "content": system})
    try:
        text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    except TemplateError as error:
        hint = None if system is None else "omit --system"
        raise UnsuitablePrompt(f"the chat template refuses the messages: {error}", hint=hint) from None
    return str(text) + (prefill or "")


def chat_prefix(tokenizer: Any) -> tuple[int, ...]:
    """Return the ids that every conversation in the tokenizer's chat template begins with, with or without a system message.

    They belong to the template (`<bos><start_of_turn>user` and a line break for Gemma 3), so features on them say nothing
    about the prompt. Empty without a template.
    """
    template = getattr(tokenizer, "chat_template", None)
    return _chat_prefix(tokenizer, str(template)) if template else ()


@functools.lru_cache(maxsize=8)
def _chat_prefix(tokenizer: Any, template: str) -> tuple[int, ...]:
    conversations = []
    # Different first characters, so that no token spans the end of the template and the start of every message.
    for prompt, system in (("a", None), ("7", None), ("Ω", None), ("a", "b"), ("a", "8"), ("a", "Я")):
        with contextlib.suppress(BadPrompt):
            conversations.append(_text_ids(chat_text(tokenizer, prompt, system), tokenizer))
    first = conversations[0] if conversations else []
    length = 0
    while length < len(first) and all(ids[length : length + 1] == [first[length]] for ids in conversations):
        length += 1
    return tuple(first[:length])


def _text_ids(text: str, tokenizer: Any) -> list[int]:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        raise BadPrompt("the prompt contains a lone surrogate, which isn't a character") from None
    return [int(token) for token in tokenizer.encode(text, add_special_tokens=False)]


def _given_ids(prompt: Tensor | Sequence[int]) -> list[int]:
    if not isinstance(prompt, Tensor):
        prompt = _as_tensor(prompt)
    if prompt.numel() == 0:
        return []
    if prompt.dtype is torch.bool or prompt.is_floating_point() or prompt.is_complex():
        raise InvalidType(f"token ids must be whole numbers, not {str(prompt.dtype).removeprefix('torch.')}")
    if sum(size > 1 for size in prompt.shape) > 1:
        raise BadPrompt(f"one prompt at a time: ids of shape {tuple(prompt.shape)} are several")
    return [int(token) for token in prompt.flatten().tolist()]


def _as_tensor(prompt: Any) -> Tensor:
    if not isinstance(prompt, Sequence) or isinstance(prompt, (bytes, bytearray)):
        raise InvalidType(f"a prompt is text, a list of ids or a tensor, not {type(prompt).__name__}")
    try:
        return torch.tensor(prompt)
    except (TypeError, ValueError, RuntimeError, OverflowError):
        raise InvalidType("the prompt isn't a list of token ids") from None


def _check_vocabulary(ids: Sequence[int], d_vocab: int) -> None:
    for position, token in enumerate(ids):
        if not 0 <= token < d_vocab:
            raise UnsuitablePrompt(
                f"token id {token} at position {position} is outside the vocabulary of {d_vocab}"
            )


def _with_prefix(
    ids: list[int], tokenizer: Any, model_name: str, d_vocab: int
) -> tuple[list[int], range, tuple[str, ...]]:
    """Return the ids that the model sees, the zeroed positions, and notes."""
    if _is_gemma3_chat(model_name):
        _check_gemma3_prefix(ids, tokenizer)
        return ids, range(len(_GEMMA3_PREFIX)), ()
    ids, notes = _with_first_token(ids, tokenizer, d_vocab)
    prefix = () if tokenizer is None else chat_prefix(tokenizer)
    in_chat = len(prefix) > 1 and tuple(ids[: len(prefix)]) == prefix
    return ids, range(len(prefix) if in_chat else 1), notes


def _with_first_token(ids: list[int], tokenizer: Any, d_vocab: int) -> tuple[list[int], tuple[str, ...]]:
    if tokenizer is None:
        return ids, ("there is no tokenizer: the ids are used as they are",)
    special = list(tokenizer.all_special_ids)
    if ids[0] in special and ids[0] != _unknown_id(tokenizer):
        return ids, ()
    preferred = [tokenizer.bos_token_id, tokenizer.pad_token_id, tokenizer.eos_token_id, *special]
    # A padding token that was added to the tokenizer alone has no embedding.
    usable = [token for token in preferred if token is not None and token < d_vocab]
    if not usable:
        note = "the tokenizer has no special token to put first; features of the first token are not traced"
        return ids, (note,)
    return [usable[0], *ids], ()


def _is_gemma3_chat(model_name: str) -> bool:
    name = model_name.rstrip("/").lower()
    return "gemma-3" in name and name.endswith("-it")


def _check_gemma3_prefix(ids: Sequence[int], tokenizer: Any) -> None:
    if tuple(ids[: len(_GEMMA3_PREFIX)]) != _GEMMA3_PREFIX:
        start = tokenizer.decode(list(ids[: len(_GEMMA3_PREFIX)]))
        raise UnsuitablePrompt(
            f"a prompt for an instruction-tuned Gemma 3 must begin with its chat prefix, not with {start!r}",
            hint="use --chat, or begin with <bos><start_of_turn>user and a line break",
        )
