"""What a model name means: a folder, the embedded model, or a model of the hub at a revision."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from circuit_tracer_cli.backends.model_source import find_model
from circuit_tracer_cli.backends.tokenizers import load_tokenizer
from circuit_tracer_cli.demo import model_dir
from circuit_tracer_cli.errors import BadModel


def test_the_embedded_model_and_a_folder(tmp_path: Path) -> None:
    assert find_model("demo").folder == model_dir()
    odd = tmp_path / "model@home"
    odd.mkdir()
    assert find_model(str(odd)).revision is None


@pytest.mark.parametrize(
    ("text", "name", "revision"),
    [("gpt2", "gpt2", None), ("EleutherAI/pythia-70m@step1000", "EleutherAI/pythia-70m", "step1000")],
)
def test_a_model_of_the_hub(text: str, name: str, revision: str | None) -> None:
    found = find_model(text)
    assert (found.name, found.revision, found.folder) == (name, revision, None)
    assert str(found) == text


@pytest.mark.parametrize("text", ["/no/such/model", "./model", "a/b/c", "user/model@", "@main"])
def test_what_is_neither(text: str) -> None:
    with pytest.raises(BadModel):
        find_model(text)


def test_tokenizer_and_configuration_are_of_the_revision(monkeypatch: pytest.MonkeyPatch) -> None:
    import transformers

    asked: list[tuple[str, Any]] = []

    class Config:
        def to_dict(self) -> dict[str, Any]:
            return {"vocab_size": 3}

    def fetched(name: str, revision: str | None = None) -> Config:
        asked.append((name, revision))
        return Config()

    monkeypatch.setattr(transformers.AutoConfig, "from_pretrained", fetched)
    monkeypatch.setattr(transformers.AutoTokenizer, "from_pretrained", fetched)
    source = find_model("user/model-of-a-test@v2")
    assert source.config() == {"vocab_size": 3}
    load_tokenizer(source.name, source.revision)
    assert asked == [("user/model-of-a-test", "v2")] * 2
