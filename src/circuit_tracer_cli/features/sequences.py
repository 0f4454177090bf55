"""Documents as sequences of tokens that the model can read in one pass, and token ids as texts for the viewer."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any

from circuit_tracer_cli.errors import BadPrompt
from circuit_tracer_cli.replacement import ReplacementModel
from circuit_tracer_cli.tokens import Tokens, chat_text

_BYTE_TOKEN = re.compile(r"<0x([0-9A-Fa-f]{2})>")


class Sequencer:
    """Cuts documents into sequences.

    Args:
        model: Its tokenizer and its rules about the first token are used.
        length: Most tokens of a sequence, the special ones included.
    """

    def __init__(self, model: ReplacementModel, length: int) -> None:
        self.model = model
        self.lead = _required_lead(model)
        self.size = max(1, min(length, model.model.shape.n_ctx) - max(1, len(self.lead)))

    def sequences(self, text: str) -> Iterator[Tokens]:
        """The document's tokens in pieces, each with what the model wants first. Raises BadPrompt if it can't be tokenised."""
        try:
            text.encode("utf-8")
        except UnicodeEncodeError:
            raise BadPrompt("the document holds half a character (a lone surrogate)") from None
        ids = self.model.tokenizer.encode(text, add_special_tokens=False)
        for start in range(0, len(ids), self.size):
            yield self.model.tokenize([*self.lead, *ids[start : start + self.size]])


def _required_lead(model: ReplacementModel) -> list[int]:
    """Tokens without which the model's prompts are refused (an instruction-tuned Gemma 3's), otherwise none."""
    try:
        model.tokenize("a")
    except BadPrompt:
        tokens = model.tokenize(chat_text(model.tokenizer, "a"))
        return [int(token) for token in tokens.ids[: len(tokens.zero_positions)]]
    return []


class TokenTexts(dict[int, str]):
    """Each token alone as text; bytes that are no whole character are written `\\xHH`, as the format wants it."""

    def __init__(self, tokenizer: Any) -> None:
        super().__init__()
        self._tokenizer = tokenizer
        self._byte_of = _byte_alphabet()

    def __missing__(self, token: int) -> str:
        text = str(self._tokenizer.decode([token]))
        self[token] = self._escaped(token, text) if "\ufffd" in text else text
        return self[token]

    def of(self, tokens: Sequence[int]) -> list[str]:
        """The texts of several tokens."""
        return [self[token] for token in tokens]

    def _escaped(self, token: int, text: str) -> str:
        """The token's bytes, if the tokenizer's own spelling tells them."""
        spelling = str(self._tokenizer.convert_ids_to_tokens(token))
        single = _BYTE_TOKEN.fullmatch(spelling)
        if single:
            return f"\\x{single[1].lower()}"
        if not all(character in self._byte_of for character in spelling):
            return text
        return bytes(self._byte_of[character] for character in spelling).decode("utf-8", "backslashreplace")


def _byte_alphabet() -> dict[str, int]:
    """How byte-level tokenizers spell bytes: printable Latin-1 as itself, the others from U+0100 on in order."""
    printable = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    others = (byte for byte in range(256) if byte not in printable)
    return {chr(byte): byte for byte in printable} | {chr(0x100 + n): byte for n, byte in enumerate(others)}
