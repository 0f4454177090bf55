"""GGUF files as models: converted once to a folder that every backend reads, and checked before anything is traced.

Transformers reads the tensors and the settings that it knows, and passes over the others; llama.cpp's rules for cutting text are
only named in the file. So each setting and each tensor must be accounted for, and the tokenizer must cut as the name says.
"""

from __future__ import annotations

import functools
import hashlib
import json
import math
import os
import re
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any

from circuit_tracer_cli.errors import BadModel, MissingExtra, UnsupportedArchitecture
from circuit_tracer_cli.files.atomic import output_error
from circuit_tracer_cli.files.locations import cache_root
from circuit_tracer_cli.files.locks import locked_file

SUFFIX = ".gguf"
_VERSION = 1
"""Part of the name of a converted folder; to be raised whenever the conversion changes."""
_TOKENIZER = "tokenizer.json"
_READING = "transformers.modeling_gguf_pytorch_utils"
_BESIDE = f"put the model's own {_TOKENIZER} beside the GGUF file"

_SETTINGS: Mapping[str, tuple[str, ...]] = {
    "vocab_size": ("vocab_size",),
    "context_length": ("max_position_embeddings", "n_positions"),
    "block_count": ("num_hidden_layers", "n_layer"),
    "embedding_length": ("hidden_size", "n_embd"),
    "feed_forward_length": ("intermediate_size", "n_inner"),
    "attention.head_count": ("num_attention_heads", "n_head"),
    "attention.head_count_kv": ("num_key_value_heads", "num_attention_heads", "n_head"),
    "attention.key_length": ("head_dim",),
    "attention.value_length": ("head_dim",),
    "attention.layer_norm_rms_epsilon": ("rms_norm_eps",),
    "attention.layer_norm_epsilon": ("layer_norm_eps", "layer_norm_epsilon"),
    "attention.sliding_window": ("sliding_window",),
    "attn_logit_softcapping": ("attn_logit_softcapping",),
    "final_logit_softcapping": ("final_logit_softcapping",),
    "rope.freq_base": ("rope_theta",),
    "rope.scaling.type": ("rope_type",),
    "rope.scaling.factor": ("factor",),
    "rope.scaling.original_context_length": ("original_max_position_embeddings",),
    "expert_count": ("num_local_experts", "num_experts"),
    "expert_used_count": ("num_experts_per_tok",),
    "expert_feed_forward_length": ("moe_intermediate_size",),
}
"""Settings that change numbers, without the architecture's name, and the fields of a configuration that say the same."""
_NOT_NEEDED = re.compile(
    r"^(general|tokenizer|quantize|GGUF)\.|\.(attention\.causal|pooling_type|tensor_data_layout)$"
)

_GPT2 = r"'(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
_WORDS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}%s| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
_RULES: Mapping[str, tuple[str, bool]] = {
    "gpt-2": (_GPT2, False),
    "smollm": (_GPT2, True),
    "llama-bpe": (_WORDS % "{1,3}", False),
    "llama3": (_WORDS % "{1,3}", False),
    "qwen2": (_WORDS % "", False),
    "smaug-bpe": (_WORDS % "{1,3}", False),
}
"""How llama.cpp cuts text before it merges, by `tokenizer.ggml.pre`: the expression, and whether digits stand alone."""
_COMMON = frozenset(
    {
        "the",
        "of",
        "and",
        "that",
        "for",
        "was",
        "with",
        "his",
        "they",
        "this",
        "from",
        "have",
        "one",
        "not",
        "but",
        "what",
        "all",
    }
    | {
        "were",
        "when",
        "there",
        "which",
        "their",
        "will",
        "about",
        "many",
        "then",
        "them",
        "these",
        "some",
        "would",
        "make",
    }
    | {
        "time",
        "has",
        "more",
        "write",
        "number",
        "people",
        "first",
        "water",
        "been",
        "call",
        "find",
        "long",
        "down",
        "day",
    }
    | {"part", "capital", "country", "language", "government"}
)
"""Words that a vocabulary of English may have as tokens."""
_SENTENCE = "The capital of France is Paris, and in 2024 the keys to the cabinet were on the table."
_LEAST_VOCABULARY = 8000
"""Size from which on a vocabulary is taken for that of a language model: smaller ones are of toys that know no such sentence."""
_MOST_LOSS = 0.7
"""Loss of a plain sentence, as a share of that of guessing, above which weights or tokens are taken for wrong."""


def is_gguf(name: str) -> bool:
    """True for the name of a GGUF file, here or on the hub."""
    return name.partition("@")[0].lower().endswith(SUFFIX)


def gguf_folder(name: str) -> Path:
    """Return the folder of a GGUF file's model in the cache, converting the file the first time.

    Args:
        name: A file, or `USER/REPO/FILE.gguf[@REVISION]` on the hub. A `tokenizer.json` beside it replaces the tokenizer
            that is rebuilt from it.

    Raises:
        BadModel: No such file; a setting, tensor or tokenizer that would be wrong; a model that doesn't read plain English.
        UnsupportedArchitecture: An architecture that transformers or this program doesn't know.
        MissingExtra: The package `gguf` isn't installed.
        OutputError: The cache can't be written.
    """
    try:
        import gguf  # noqa: F401
    except ImportError:
        raise MissingExtra(
            "reading GGUF files needs the package gguf", "pip install 'circuit-tracer-cli[gguf]'"
        ) from None
    path = _local(name)
    folder = cache_root() / "models" / f"{path.stem}-{_digest(path)}"
    if (folder / "config.json").is_file():
        return folder
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise output_error(folder.parent, error) from None
    with locked_file(folder.parent / f".{folder.name}.lock"):
        if not (folder / "config.json").is_file():
            _convert(path, folder)
    return folder


def _local(name: str) -> Path:
    """The file itself, fetched if it is on the hub."""
    path = Path(name).expanduser()
    if path.is_file():
        return path.resolve()
    repo, at, revision = name.partition("@")
    parts = repo.split("/")
    if path.is_absolute() or name.startswith((".", "~")) or len(parts) < 3 or (at and not revision):
        raise BadModel(
            f"there is no file {name}", "give the path of a GGUF file, or USER/REPO/FILE.gguf on the hub"
        )
    from circuit_tracer_cli.hub import snapshot
    from circuit_tracer_cli.types import SilentProgress

    file = "/".join(parts[2:])
    tokenizer = [str(Path(file).with_name(one)) for one in (_TOKENIZER, "tokenizer_config.json")]
    found = (
        snapshot("/".join(parts[:2]), revision or None, [file, *tokenizer], SilentProgress()).folder / file
    )
    if not found.is_file():
        raise BadModel(
            f"{'/'.join(parts[:2])} has no file {file}", "see the list of files on the repository's page"
        )
    return found


def _digest(path: Path) -> str:
    """Changes with the file, with the tokenizer beside it, and with the rules of conversion."""
    facts: list[object] = [_VERSION, str(path)]
    for one in (path, path.parent / _TOKENIZER):
        if one.is_file():
            facts += [one.stat().st_size, one.stat().st_mtime_ns]
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:12]


def _convert(path: Path, folder: Path) -> None:
    """Write the folder, which gets its name once it is whole."""
    from circuit_tracer_cli.backends.loading import quiet_loading

    work = folder.parent / f".{folder.name}.unfinished"
    shutil.rmtree(work, ignore_errors=True)
    try:
        with quiet_loading(), read_once():
            config, tensors, metadata = _read(path)
            tokenizer = _tokenizer(path, metadata)
            model = _model(path, config, tensors, tokenizer)
            work.mkdir()
            model.save_pretrained(work)
            tokenizer.save_pretrained(work)
        os.replace(work, folder)
    except OSError as error:
        raise output_error(folder, error) from None
    finally:
        shutil.rmtree(work, ignore_errors=True)


@contextmanager
def read_once() -> Iterator[None]:
    """Make transformers, which reads a file's header for each of its parts, read it once, and without a progress bar."""
    package: Any = import_module("gguf")
    reading: Any = import_module(_READING)
    reader, bar = package.GGUFReader, reading.tqdm
    package.GGUFReader = functools.lru_cache(maxsize=1)(reader)
    reading.tqdm = functools.partial(bar, disable=True)
    try:
        yield
    finally:
        package.GGUFReader, reading.tqdm = reader, bar


def _read(path: Path) -> tuple[Any, set[str], dict[str, Any]]:
    """The configuration that transformers makes of a file, the names of its tensors, and its metadata; checked."""
    from transformers import AutoConfig

    from circuit_tracer_cli.backends.families import family_for
    from circuit_tracer_cli.backends.model_config import model_shape

    try:
        reader = import_module("gguf").GGUFReader(str(path))
        metadata = {key: field.contents() for key, field in reader.fields.items()}
    except (OSError, ValueError, IndexError, KeyError) as error:
        raise BadModel(f"{path} isn't a GGUF file that can be read: {error}", "download it again") from None
    if metadata.get("split.count", 1) > 1:
        raise BadModel(
            f"{path} is one of {metadata['split.count']} parts",
            "join them with llama.cpp's gguf-split --merge",
        )
    try:
        config: Any = AutoConfig.from_pretrained(path.parent, gguf_file=path.name)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UnsupportedArchitecture(
            f"transformers can't read the architecture {metadata.get('general.architecture')} of {path.name}: {error}"
        ) from None
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

    if not config.architectures:
        named = MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.get(config.model_type)
        config.architectures = [named] if named else None
    values = config.to_dict()
    family_for(values)
    model_shape(values)
    check_settings(path.name, metadata, values)
    return config, {tensor.name for tensor in reader.tensors}, metadata


def check_settings(name: str, metadata: Mapping[str, Any], config: Mapping[str, Any]) -> None:
    """Raise BadModel for the first setting of a GGUF file that the configuration contradicts or doesn't have.

    Args:
        name: The file, for the message.
        metadata: Its keys and values.
        config: What transformers makes of them.
    """
    prefix = f"{metadata.get('general.architecture')}."
    said: dict[str, list[Any]] = {}
    for key, value in _fields(config):
        said.setdefault(key, []).append(value)
    head = said.get("head_dim", [None])[0]
    for key, value in metadata.items():
        short = key.removeprefix(prefix)
        if _NOT_NEEDED.search(key) or (short == "rope.scaling.type" and value == "none"):
            continue
        if short == "rope.dimension_count":
            shares = said.get("partial_rotary_factor", [1.0])
            ours: list[Any] = [round(head * share) for share in shares if head and share is not None]
        elif short in _SETTINGS:
            ours = next(
                (
                    said[field]
                    for field in _SETTINGS[short]
                    if any(v is not None for v in said.get(field, []))
                ),
                [],
            )
        else:
            raise BadModel(
                f"{name} has the setting {key} = {_shown(value)}, which this program doesn't know",
                "use the model's original weights",
            )
        if not any(_same(value, one) for one in ours):
            raise BadModel(
                f"{name} says {key} = {_shown(value)}, but transformers reads it as "
                f"{_shown(ours[0]) if ours else 'nothing'}",
                "use the model's original weights",
            )


def _fields(config: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """All keys of a configuration with their values, those of nested ones too."""
    for key, value in config.items():
        if isinstance(value, Mapping):
            yield from _fields(value)
        else:
            yield key, value


def _same(a: Any, b: Any) -> bool:
    numbers = isinstance(a, (int, float)) and isinstance(b, (int, float))
    return math.isclose(a, b, rel_tol=1e-6) if numbers else a == b


def _shown(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 40 else f"{text[:37]}…"


def _tokenizer(path: Path, metadata: Mapping[str, Any]) -> Any:
    """The tokenizer beside the file, else the one in it, cutting as the file's rule says; checked."""
    from transformers import AutoTokenizer, PreTrainedTokenizerFast

    pieces = list(metadata.get("tokenizer.ggml.tokens", []))
    if (path.parent / _TOKENIZER).is_file():
        from circuit_tracer_cli.backends.tokenizers import load_tokenizer

        own = (path.parent / "tokenizer_config.json").is_file()
        tokenizer: Any = (
            load_tokenizer(str(path.parent))
            if own
            else PreTrainedTokenizerFast(tokenizer_file=str(path.parent / _TOKENIZER))
        )
        _check_vocabulary(path, pieces, tokenizer)
    else:
        try:
            tokenizer = AutoTokenizer.from_pretrained(path.parent, gguf_file=path.name)
        except (
            Exception
        ) as error:  # the library has no error of its own for vocabularies that it can't rebuild
            raise BadModel(f"the tokenizer in {path.name} can't be rebuilt: {error}", _BESIDE) from None
        if metadata.get("tokenizer.ggml.model") == "gpt2":
            _set_rule(path, tokenizer, metadata.get("tokenizer.ggml.pre"))
    _set_first(tokenizer, metadata, pieces)
    _check_cuts(path, tokenizer)
    return tokenizer


def _check_vocabulary(path: Path, pieces: list[str], tokenizer: Any) -> None:
    """Raise BadModel if the tokenizer beside a file has other tokens than the file."""
    for number, piece in enumerate(pieces):
        found = tokenizer.convert_ids_to_tokens(number) if number < len(tokenizer) else None
        if found is not None and found != piece:
            raise BadModel(
                f"token {number} is {found!r} in {path.parent / _TOKENIZER}, but {piece!r} in {path.name}",
                f"they belong to different models: {_BESIDE}",
            )


def _set_rule(path: Path, tokenizer: Any, rule: str | None) -> None:
    """Make a byte-level tokenizer cut text by the rule that its file names. Raises BadModel for an unknown rule."""
    from tokenizers import Regex, normalizers, pre_tokenizers

    if rule is None or rule not in _RULES:
        raise BadModel(
            f"{path.name} cuts text by the rule {rule!r}, which this program doesn't know", _BESIDE
        )
    expression, digits = _RULES[rule]
    steps: list[Any] = [pre_tokenizers.Digits(individual_digits=True)] if digits else []
    steps += [
        pre_tokenizers.Split(Regex(expression), "isolated"),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
    ]
    tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence(steps)
    if rule == "qwen2":
        tokenizer.backend_tokenizer.normalizer = normalizers.NFC()


def _set_first(tokenizer: Any, metadata: Mapping[str, Any], pieces: list[str]) -> None:
    """Make a tokenizer put the first token before a prompt exactly if the file says so."""
    from tokenizers import processors

    template: Any = processors.TemplateProcessing
    wanted = metadata.get("tokenizer.ggml.add_bos_token")
    first = metadata.get("tokenizer.ggml.bos_token_id")
    if wanted is None or first is None:
        return
    if (tokenizer("a").input_ids[:1] == [first]) is not bool(wanted):
        piece = pieces[first]
        tokenizer.backend_tokenizer.post_processor = template(
            single=f"{piece}:0 $A:0" if wanted else "$A:0",
            pair=f"{piece}:0 $A:0 $B:1" if wanted else "$A:0 $B:1",
            special_tokens=[(piece, first)] if wanted else [],
        )


def _check_cuts(path: Path, tokenizer: Any) -> None:
    """Raise BadModel if common words that are tokens are cut, or a sentence changes on its way through the tokens."""
    known = tokenizer.get_vocab()
    for word in sorted(_COMMON):
        for mark in ("Ġ", "▁"):
            if mark + word in known:
                cut = tokenizer(f"a {word}", add_special_tokens=False).input_ids
                if cut[-1] != known[mark + word]:
                    raise BadModel(
                        f"the tokenizer of {path.name} cuts {word!r} into pieces, though it is a token: "
                        + " ".join(repr(tokenizer.decode([one])) for one in cut[1:]),
                        _BESIDE,
                    )
    back = tokenizer.decode(
        tokenizer(_SENTENCE, add_special_tokens=False).input_ids, clean_up_tokenization_spaces=False
    )
    if len(known) >= _LEAST_VOCABULARY and back.strip() != _SENTENCE:
        raise BadModel(f"the tokenizer of {path.name} turns {_SENTENCE!r} into {back!r}", _BESIDE)


def _model(path: Path, config: Any, tensors: set[str], tokenizer: Any) -> Any:
    """The model in float32, with every tensor of the file in its place. Raises BadModel."""
    import torch
    from transformers import AutoModelForCausalLM

    from circuit_tracer_cli.backends.checkpoint import check_weights, refuse_loading
    from circuit_tracer_cli.backends.families import architecture_of

    loaded: Any = None
    try:
        loaded = AutoModelForCausalLM.from_pretrained(
            path.parent, gguf_file=path.name, dtype=torch.float32, output_loading_info=True
        )
    except (OSError, ValueError, KeyError, TypeError, RuntimeError, NotImplementedError) as error:
        refuse_loading(path.name, error)
    model, report = loaded
    check_weights(path.name, model, report, architecture_of(config.to_dict()))
    reading: Any = import_module(_READING)
    processor = reading.TENSOR_PROCESSORS.get(config.model_type, reading.TensorProcessor)(
        config=config.to_dict()
    )
    known = set(reading.get_gguf_hf_weights_map(model, processor))
    for name in sorted(tensors - known):
        raise BadModel(
            f"{path.name} has the tensor {name}, which transformers doesn't read",
            "use the model's original weights",
        )
    model.hf_quantizer = None  # the weights are plain numbers by now
    del model.config.quantization_config
    model.config.architectures = [type(model).__name__]
    _check_sentence(path, model, tokenizer)
    return model


def _check_sentence(path: Path, model: Any, tokenizer: Any) -> None:
    """Raise BadModel if a model with a vocabulary of a language finds a plain sentence about as likely as noise."""
    import torch

    if model.config.vocab_size < _LEAST_VOCABULARY:
        return
    tokens = torch.tensor([tokenizer(_SENTENCE).input_ids])
    with torch.no_grad():
        loss = float(model(tokens, labels=tokens).loss)
    guessing = math.log(model.config.vocab_size)
    if not loss < _MOST_LOSS * guessing:
        raise BadModel(
            f"{path.name} doesn't read plain English as transformers loads it: {loss:.1f} nats per token, where guessing "
            f"has {guessing:.1f}",
            f"use the model's original weights, or {_BESIDE}",
        )
