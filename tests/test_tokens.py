from __future__ import annotations

import functools
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from circuit_tracer_cli.errors import BadPrompt, InvalidType
from circuit_tracer_cli.tokens import chat_text, ensure_tokenized

GEMMA3_PREFIX = [2, 105, 2364, 107]


class LetterTokenizer:
    """One token per letter (its code), and special tokens where the test puts them."""

    chat_template: str | None = None

    def __init__(self, size: int = 3000, **special: int | None) -> None:
        self.size = size
        self.bos_token_id = special.get("bos")
        self.pad_token_id = special.get("pad")
        self.eos_token_id = special.get("eos")
        self.all_special_ids = [token for token in special.values() if token is not None]

    def __len__(self) -> int:
        return self.size

    def encode(self, text: str, add_special_tokens: bool) -> list[int]:
        assert not add_special_tokens
        return [ord(letter) for letter in text]

    def decode(self, ids: list[int]) -> str:
        return "".join("<s>" if token in self.all_special_ids else chr(token) for token in ids)


def ids(prompt: Any, tokenizer: Any, **options: Any) -> list[int]:
    return list(ensure_tokenized(prompt, tokenizer, **options).ids.tolist())


def test_a_special_token_is_put_first() -> None:
    tokens = ensure_tokenized("ab", LetterTokenizer(bos=1))
    assert tokens.ids.tolist() == [1, 97, 98]
    assert tokens.ids.dtype is torch.int64
    assert tokens.strings == ("<s>", "a", "b")
    assert tokens.text == "<s>ab"
    assert tokens.zero_positions == range(1)
    assert len(tokens) == 3
    assert tokens.notes == ()


@pytest.mark.parametrize(
    ("special", "first"),
    [
        ({"bos": 0, "pad": 1, "eos": 2}, 0),
        ({"bos": None, "pad": 0, "eos": 2}, 0),
        ({"bos": None, "pad": None, "eos": 2}, 2),
        ({"other": 3}, 3),
        ({"bos": None, "pad": 3000, "eos": 5}, 5),
    ],
    ids=["bos 0", "pad 0", "eos", "other", "pad without embedding"],
)
def test_which_special_token_it_is(special: dict[str, int | None], first: int) -> None:
    assert ids("a", LetterTokenizer(**special)) == [first, 97]


@pytest.mark.parametrize("first", [0, 2, 3])
def test_any_special_token_that_is_there_stays_alone(first: int) -> None:
    tokenizer = LetterTokenizer(bos=0, eos=2, other=3)
    assert ids([first, 97], tokenizer) == [first, 97]
    assert ids(chr(first) + "a", tokenizer) == [first, 97]


def test_a_tokenizer_without_special_tokens() -> None:
    tokens = ensure_tokenized("ab", LetterTokenizer())
    assert tokens.ids.tolist() == [97, 98]
    assert tokens.zero_positions == range(1)
    assert "no special token" in tokens.notes[0]


@pytest.mark.parametrize(
    "prompt",
    [
        [97, 98],
        (97, 98),
        [[97, 98]],
        torch.tensor([97, 98]),
        torch.tensor([[97, 98]], dtype=torch.int32),
        torch.tensor([[97], [98]]),
    ],
    ids=repr,
)
def test_ids_in_every_shape(prompt: Any) -> None:
    assert ids(prompt, LetterTokenizer(bos=1)) == [1, 97, 98]


@pytest.mark.parametrize("prompt", ["a", [97], torch.tensor([97]), torch.tensor([[97]]), torch.tensor(97)])
def test_a_single_token(prompt: Any) -> None:
    assert ids(prompt, LetterTokenizer(bos=1)) == [1, 97]


def test_the_first_token_alone() -> None:
    assert ids([1], LetterTokenizer(bos=1)) == [1]


@pytest.mark.parametrize("prompt", ["", [], (), torch.empty(0), torch.empty(1, 0, dtype=torch.int64)])
def test_an_empty_prompt(prompt: Any) -> None:
    with pytest.raises(BadPrompt, match="prompt is empty"):
        ensure_tokenized(prompt, LetterTokenizer(bos=1))


@pytest.mark.parametrize(
    ("prompt", "message"),
    [
        (3, "not int"),
        (None, "not NoneType"),
        (b"ab", "not bytes"),
        ({97: 98}, "not dict"),
        (["a"], "isn't a list of token ids"),
        ([97, None], "isn't a list of token ids"),
        ([[97], [97, 98]], "isn't a list of token ids"),
        ([2**80], "isn't a list of token ids"),
        ([97.0], "whole numbers, not float32"),
        ([True], "whole numbers, not bool"),
        (torch.tensor([1j]), "whole numbers, not complex64"),
    ],
)
def test_what_is_no_prompt(prompt: Any, message: str) -> None:
    with pytest.raises(InvalidType, match=message) as caught:
        ensure_tokenized(prompt, LetterTokenizer(bos=1))
    assert isinstance(caught.value, TypeError)


def test_several_prompts() -> None:
    with pytest.raises(BadPrompt, match=r"one prompt at a time: ids of shape \(2, 2\)") as caught:
        ensure_tokenized([[1, 2], [3, 4]], LetterTokenizer(bos=1))
    assert isinstance(caught.value, ValueError)


@pytest.mark.parametrize(("prompt", "d_vocab"), [([97, -1], None), ([97, 3000], None), ([97, 98], 98)])
def test_ids_outside_the_vocabulary(prompt: list[int], d_vocab: int | None) -> None:
    with pytest.raises(BadPrompt, match=f"id {prompt[1]} at position 1 is outside the vocabulary"):
        ensure_tokenized(prompt, LetterTokenizer(bos=1), d_vocab=d_vocab)


def test_the_models_vocabulary_may_be_larger_than_the_tokenizers() -> None:
    assert ids([97, 3005], LetterTokenizer(bos=1), d_vocab=3010) == [1, 97, 3005]


def test_the_context_counts_the_first_token() -> None:
    assert len(ids("abc", LetterTokenizer(bos=1), n_ctx=4)) == 4
    with pytest.raises(BadPrompt, match="has 5 tokens, but the model takes at most 4"):
        ensure_tokenized("abcd", LetterTokenizer(bos=1), n_ctx=4)


def test_half_a_character() -> None:
    with pytest.raises(BadPrompt, match="lone surrogate"):
        ensure_tokenized("a\ud800", LetterTokenizer(bos=1))


@pytest.mark.parametrize("name", ["google/gemma-3-1b-it", "models/Gemma-3-270m-IT/"])
def test_an_instruction_tuned_gemma_3_needs_its_prefix(name: str) -> None:
    tokenizer = LetterTokenizer(bos=2)
    tokens = ensure_tokenized([*GEMMA3_PREFIX, 97], tokenizer, model_name=name)
    assert tokens.ids.tolist() == [*GEMMA3_PREFIX, 97]
    assert tokens.zero_positions == range(4)
    for prompt in ("abc", [2, 97, 98, 99, 100], GEMMA3_PREFIX[:3]):
        with pytest.raises(BadPrompt, match="must begin with its chat prefix") as caught:
            ensure_tokenized(prompt, tokenizer, model_name=name)
        assert "--chat" in (caught.value.hint or "")


@pytest.mark.parametrize("name", ["google/gemma-3-1b-pt", "google/gemma-2-2b-it", ""])
def test_other_models_have_one_zeroed_position(name: str) -> None:
    assert ensure_tokenized("abc", LetterTokenizer(bos=2), model_name=name).zero_positions == range(1)


class ChatTokenizer(LetterTokenizer):
    """With a template that, like many, knows no system message."""

    chat_template = "there is one"

    def apply_chat_template(
        self, messages: list[dict[str, str]], tokenize: bool, add_generation_prompt: bool
    ) -> str:
        from jinja2 import TemplateError

        assert not tokenize
        if messages[0]["role"] == "system":
            raise TemplateError("System role not supported")
        text = "".join(f"[{message['role']}]{message['content']}" for message in messages)
        return text + "[assistant]" * add_generation_prompt


def test_chat_text_ends_where_the_assistant_begins() -> None:
    assert chat_text(ChatTokenizer(), "Hello") == "[user]Hello[assistant]"
    assert chat_text(ChatTokenizer(), "Hello", prefill="Well,") == "[user]Hello[assistant]Well,"


def test_chat_text_says_what_the_template_refuses() -> None:
    with pytest.raises(BadPrompt, match="System role not supported") as caught:
        chat_text(ChatTokenizer(), "Hello", system="Be brief")
    assert caught.value.hint == "omit --system"
    with pytest.raises(BadPrompt, match="no chat template"):
        chat_text(LetterTokenizer(), "Hello")


def golden_cases() -> list[Any]:
    folder = Path(__file__).resolve().parents[1] / ".." / "shared" / "golden" / "cases"
    inputs = {path.parent.name: json.loads(path.read_text()) for path in sorted(folder.glob("*/inputs.json"))}
    return [pytest.param(name, case, id=name) for name, case in inputs.items() if case["kind"] == "graph"]


@functools.cache
def tokenizer_of(folder: Path) -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(folder)


@pytest.mark.parametrize(("name", "case"), golden_cases())
def test_ids_are_the_references(golden: Path, name: str, case: dict[str, Any]) -> None:
    folder = golden / "cases" / name
    tokenizer = tokenizer_of((folder / case["model"]).resolve())
    expected = load_file(folder / "expected.safetensors")["input_tokens"]
    assert ids(case["prompt"], tokenizer) == expected.tolist()


GEMMA = "<bos>{% for m in messages %}<turn>{{ m.role }}\n{{ m.content }}<end>\n{% endfor %}<turn>model\n"
NO_SYSTEM = (
    "{% if messages[0].role == 'system' %}{{ raise_exception('no system message') }}{% endif %}" + GEMMA
)
FOLDED = (
    "<bos><turn>user\n{% if messages[0].role == 'system' %}{{ messages[0].content }}\n{% endif %}"
    "{{ messages[-1].content }}<end>\n<turn>model\n"
)


def chat_tokenizer(template: str) -> Any:
    """Single characters, with `<bos>`, `<turn>`, `<end>` and role names as one token each."""
    from tokenizers import AddedToken, Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    letters = {chr(code): code for code in range(128)} | {"Ω": 128, "Я": 129, "?": 63}
    inner = Tokenizer(models.WordLevel(letters, unk_token="?"))
    inner.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    inner.add_tokens([AddedToken(name, normalized=False) for name in ("user", "model", "system")])
    inner.add_special_tokens([AddedToken(name, special=True) for name in ("<bos>", "<turn>", "<end>")])
    marks = {"bos_token": "<bos>", "eos_token": "<end>", "unk_token": "?"}
    return PreTrainedTokenizerFast(tokenizer_object=inner, chat_template=template, **marks)


def test_unknown_words_are_named_and_begin_no_prompt() -> None:
    tokens = ensure_tokenized("\u00e9a\u00e9\u00ef", chat_tokenizer(GEMMA))
    assert tokens.strings == ("<bos>", "?", "a", "?", "?")
    assert len(tokens.notes) == 1
    assert "no token for '\u00e9', '\u00ef'" in tokens.notes[0]
    assert ensure_tokenized("a?", chat_tokenizer(GEMMA)).notes == ()


def test_an_unknown_word_that_also_begins_texts_stays_first() -> None:
    """GPT-2 has one token for everything."""
    tokenizer = chat_tokenizer(GEMMA)
    tokenizer.bos_token = "?"
    assert ensure_tokenized("?a", tokenizer).strings == ("?", "a")


@pytest.mark.parametrize(
    ("template", "texts"),
    [
        (GEMMA, ("<bos>", "<turn>")),
        (NO_SYSTEM, ("<bos>", "<turn>", "user", "\n")),
        (FOLDED, ("<bos>", "<turn>", "user", "\n")),
    ],
)
def test_what_every_conversation_begins_with_is_zeroed(template: str, texts: tuple[str, ...]) -> None:
    """Up to the user's or the system's first own token, in conversations alone."""
    tokenizer = chat_tokenizer(template)
    tokens = ensure_tokenized(chat_text(tokenizer, "hi", prefill="so"), tokenizer)
    assert tokens.strings[: len(texts)] == texts
    assert tokens.zero_positions == range(len(texts))
    again = ensure_tokenized(tokens.ids, tokenizer)
    assert again.zero_positions == tokens.zero_positions
    assert ensure_tokenized("hi", tokenizer).zero_positions == range(1)
    assert ensure_tokenized("<bos>hi", tokenizer).zero_positions == range(1)


def test_system_and_prefill_stand_where_the_template_puts_them() -> None:
    """The template's last line end is dropped, as Jinja does with any text's."""
    text = chat_text(chat_tokenizer(GEMMA), "hi", system="be", prefill="so")
    assert text == "<bos><turn>system\nbe<end>\n<turn>user\nhi<end>\n<turn>modelso"
