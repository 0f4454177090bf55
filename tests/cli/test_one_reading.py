"""One command reads each header once and tokenises its prompt once, also with the viewer open."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest

from circuit_tracer_cli import tokens
from circuit_tracer_cli.files import tensors
from circuit_tracer_cli.server.serve import Server

from .conftest import PROMPT, Run, Tiny


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How often each header was parsed, and the prompt tokenised."""
    found: Counter[str] = Counter()
    parse, text_ids = tensors.parse_header, tokens._text_ids

    def parse_header(text: bytes, source: str, wrong: Any) -> Any:
        found[source] += 1
        return parse(text, source, wrong)

    def tokenise(text: str, tokenizer: Any) -> list[int]:
        found["prompt"] += text == PROMPT
        return text_ids(text, tokenizer)

    monkeypatch.setattr(tensors, "_HEADERS", {})
    monkeypatch.setattr(tensors, "parse_header", parse_header)
    monkeypatch.setattr(tokens, "_text_ids", tokenise)
    monkeypatch.setattr(Server, "wait", lambda self: None)
    return found


@pytest.mark.parametrize("how", [["-o", "graph.pt"], ["--server", "--port", 0]])
def test_a_trace(run: Run, tiny: Tiny, counted: Counter[str], how: list[object]) -> None:
    done = run("attribute", "-p", PROMPT, *tiny.options, "--max-n-logits", 2, *how)
    assert done.code == 0, done.stderr
    assert counted["prompt"] == 1
    headers = {name: count for name, count in counted.items() if name.startswith(str(tiny.transcoders))}
    assert len(headers) == 3
    assert set(headers.values()) == {1}
