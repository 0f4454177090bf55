"""The known families. To add one: a file in this folder and a line in `FAMILY_MODULES`."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Any

from circuit_tracer_cli.backends.families.base import Architecture, Family
from circuit_tracer_cli.errors import UnsupportedArchitecture

FAMILY_MODULES: tuple[str, ...] = (
    "gpt2",
    "gptj",
    "gpt_neox",
    "llama",
    "qwen",
    "gemma",
    "phi",
    "phi3",
    "smollm3",
    "olmo2",
    "gpt_oss",
)


def all_families() -> list[Family]:
    """Every family of the table."""
    return [importlib.import_module(f"{__name__}.{module}").FAMILY for module in FAMILY_MODULES]


def architecture_of(config: Mapping[str, Any]) -> Architecture:
    """The entry of a configuration's class. Raises UnsupportedArchitecture."""
    name = class_name(config)
    return _family_of(name).architectures[name]


def class_name(config: Mapping[str, Any]) -> str:
    """The class that a configuration names first."""
    named = config.get("architectures") or ["none"]
    return str(named[0] if isinstance(named, (list, tuple)) else named)


def _family_of(name: str) -> Family:
    for family in all_families():
        if name in family.architectures:
            return family
    known = ", ".join(arch for family in all_families() for arch in family.architectures)
    raise UnsupportedArchitecture(
        f"the architecture {name} is not supported: the places of its norms, attention, MLP and embedding aren't known",
        hint=f"supported are {known}; CONTRIBUTING.md explains how to add another in backends/families/",
    )


def family_for(config: Mapping[str, Any]) -> Family:
    """The family of a model's `config.json`, after checking its every field.

    Raises:
        UnsupportedArchitecture: The class isn't in the table, or a field isn't known.
    """
    family = _family_of(class_name(config))
    family.check(flat(config))
    return family


def flat(config: Mapping[str, Any]) -> dict[str, Any]:
    """The configuration of the text part of a multimodal class; any other unchanged.

    Defaults of the text part's class are filled in, since published configurations omit them.
    """
    text = config.get("text_config")
    if not isinstance(text, Mapping):
        return dict(config)
    defaults: dict[str, Any] = {}
    if text.get("model_type") and not {"vocab_size", "num_attention_heads"} <= text.keys():
        from transformers import CONFIG_MAPPING

        if text["model_type"] in CONFIG_MAPPING:
            defaults = CONFIG_MAPPING[text["model_type"]](**text).to_dict()
    outer = {name: value for name, value in config.items() if name not in ("text_config", "model_type")}
    return {**defaults, **text, **outer}
