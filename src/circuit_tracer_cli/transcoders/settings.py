"""Settings of a transcoder set: each is used, known to be harmless, or refused by name.

Ignoring a setting would silently give the numbers of a transcoder other than the trained one. Every format therefore has a
`Vocabulary`; keys that aren't in it are refused.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from circuit_tracer_cli.errors import BadTranscoders, MissingFile

_MAX_BYTES = 2**20
OFF = (None, False)
NONE = (None, "none", False)
ONE = (None, False, 1, 1.0)

COMPUTING: Mapping[str, tuple[Any, ...]] = {
    "activation_fn": (None,),
    "activation_fn_kwargs": (None, {}),
    "activation_fn_str": (None,),
    "activation_function": (None,),
    "act_fn": (None,),
    "apply_b_dec_to_input": OFF,
    "center_input": OFF,
    "center_unembed": OFF,
    "center_writing_weights": OFF,
    "embed_skip": OFF,
    "finetuning_scaling_factor": ONE,
    "fold_ln": OFF,
    "gram_lookup": OFF,
    "hook_head_index": (None,),
    "hook_head_index_out": (None,),
    "input_norm_factor": ONE,
    "input_scale": ONE,
    "layer_norm_input": OFF,
    "normalize_activations": NONE,
    "normalize_input": NONE,
    "output_norm_factor": ONE,
    "output_scale": ONE,
    "rescale_acts_by_decoder_norm": OFF,
    "reshape_activations": NONE,
    "scaling_factor": ONE,
    "signed": OFF,
}
"""Settings that change what a transcoder computes but aren't supported, and the values that switch them off."""

_INSTEAD = {
    "activation_fn": "activation",
    "activation_fn_str": "activation",
    "activation_function": "activation",
    "act_fn": "activation",
    "top_k": "k",
}


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """The keys of one kind of configuration file.

    Args:
        used: Keys that are applied, or compared with the files.
        harmless: Keys on a set's origin or training that don't change its computation.
        switches: Unsupported keys that change the computation, with the values that switch them off.
    """

    used: frozenset[str]
    harmless: frozenset[str] = frozenset()
    switches: Mapping[str, tuple[Any, ...]] = field(default_factory=lambda: COMPUTING)

    def require(self, values: Mapping[Any, Any], origin: str) -> None:
        """Raise BadTranscoders naming every setting of `values`, read at `origin`, that would be ignored."""
        unknown, ignored = [], []
        for key, value in values.items():
            if key in self.used or key in self.harmless:
                continue
            if key not in self.switches:
                unknown.append(str(key))
            elif not any(type(value) is type(off) and value == off for off in self.switches[key]):
                ignored.append(f"{key}: {_short(value)}")
        if ignored:
            key = ignored[0].partition(":")[0]
            instead = _INSTEAD.get(key)
            raise BadTranscoders(
                f"{origin} sets {'; '.join(ignored)}, which circuit-tracer doesn't support"
                + (f" (it also has unknown keys: {', '.join(unknown)})" if unknown else ""),
                hint=f"rerename it {instead}, if that is what it means"
                if instead in self.used
                else "use a set saved without it; ignoring it would give wrong activations",
            )
        if unknown:
            shown = ", ".join(f"{_INSTEAD[key]} instead of {key}" for key in unknown if key in _INSTEAD)
            raise BadTranscoders(
                f"{origin} has the unknown key{'s' * (len(unknown) > 1)} {', '.join(unknown)}",
                hint=f"write {shown}"
                if shown
                else "remove keys that don't change the computation; others aren't supported",
            )


@dataclass(frozen=True, slots=True)
class Sizes:
    """A set's sizes according to its configuration, to be compared with its files. None if not stated."""

    d_model: int | None = None
    d_transcoder: int | None = None
    n_layers: int | None = None


NO_SIZES = Sizes()
SIZE_KEYS: Mapping[str, str] = {
    "d_in": "d_model",
    "d_model": "d_model",
    "d_out": "d_model",
    "d_sae": "d_transcoder",
    "d_transcoder": "d_transcoder",
    "n_features": "d_transcoder",
    "n_layers": "n_layers",
    "num_latents": "d_transcoder",
}
"""Keys for a size, in any format, and the size that each stands for."""


def stated_sizes(values: Mapping[str, Any], origin: str) -> Sizes:
    """The sizes that a configuration states. Raises BadTranscoders if two contradict each other or one isn't a number."""
    found: dict[str, int] = {}
    for key, name in SIZE_KEYS.items():
        value = values.get(key)
        if value is None or (key == "num_latents" and value == 0):  # sparsify: derived from expansion_factor
            continue
        if type(value) is not int or value < 1:
            raise BadTranscoders(
                f"{origin}: {key} must be a whole number greater than 0, not {_short(value)}"
            )
        if found.setdefault(name, value) != value:
            raise BadTranscoders(f"{origin}: {key} is {value}, but another key says {found[name]}")
    return Sizes(**found)


def read_yaml(path: Path) -> Mapping[str, Any]:
    """The mapping in a YAML file of at most 1 MiB without repeated keys. Raises MissingFile or BadTranscoders."""
    try:
        return _mapping(path, yaml.load(_text(path), Loader=_UniqueKeys))  # a SafeLoader
    except _Repeated as error:
        raise BadTranscoders(f"{path} has the key {error} twice") from None
    except (yaml.YAMLError, ValueError, TypeError, RecursionError) as error:
        if isinstance(error, BadTranscoders):
            raise
        raise BadTranscoders(f"{path} isn't valid YAML: {' '.join(str(error).split())[:200]}") from None


def read_json(path: Path) -> Mapping[str, Any]:
    """The mapping in a JSON file of at most 1 MiB without repeated keys. Raises MissingFile or BadTranscoders."""
    try:
        return _mapping(path, json.loads(_text(path), object_pairs_hook=_unique))
    except (ValueError, RecursionError) as error:
        if isinstance(error, BadTranscoders):
            raise
        if isinstance(error, _Repeated):
            raise BadTranscoders(f"{path} has the key {error} twice") from None
        raise BadTranscoders(f"{path} isn't valid JSON") from None


class _Repeated(ValueError):
    """Raised for a key that occurs twice in a mapping."""


class _UniqueKeys(yaml.SafeLoader):
    """Safe YAML in which a repeated key is an error instead of the last one winning."""

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        keys = [
            self.construct_object(key, deep=True)
            for key, _ in node.value
            if key.tag != "tag:yaml.org,2002:merge"
        ]
        for index, key in enumerate(keys):
            if key in keys[:index]:
                raise _Repeated(repr(key))
        return super().construct_mapping(node, deep)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) != len(pairs):
        raise _Repeated(repr(next(key for index, (key, _) in enumerate(pairs) if key in dict(pairs[:index]))))
    return values


def _text(path: Path) -> str:
    try:
        if not path.is_file():
            if path.exists():
                raise BadTranscoders(f"{path} isn't a regular file")
            raise FileNotFoundError
        if path.stat().st_size > _MAX_BYTES:
            raise BadTranscoders(f"{path} is too large for a config file")
        return path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise MissingFile(f"{path} doesn't exist") from None
    except OSError as error:
        raise MissingFile(f"{path} can't be read: {error.strerror or error}") from None


def _mapping(path: Path, values: Any) -> Mapping[str, Any]:
    if not isinstance(values, Mapping):
        raise BadTranscoders(f"{path} must be a mapping of keys and values")
    return values


def _short(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, default=str)
    return text if len(text) <= 60 else f"{text[:57]}…"
