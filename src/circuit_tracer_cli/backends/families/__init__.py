"""The families that are known. To add one: a file beside this one and a line in `FAMILY_MODULES`."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Any

from circuit_tracer_cli.backends.families.base import Family
from circuit_tracer_cli.errors import UnsupportedArchitecture

FAMILY_MODULES: tuple[str, ...] = ("gpt2", "gpt_neox", "llama", "qwen", "gemma", "gpt_oss")


def all_families() -> list[Family]:
    """Every family of the table."""
    return [importlib.import_module(f"{__name__}.{module}").FAMILY for module in FAMILY_MODULES]


def family_for(config: Mapping[str, Any]) -> Family:
    """The family of a model's `config.json`, after checking every field of it.

    Raises:
        UnsupportedArchitecture: the class isn't in the table, or a field isn't understood.
    """
    names = config.get("architectures") or []
    name = names[0] if names else "none"
    for family in all_families():
        if name in family.architectures:
            family.check(config)
            return family
    known = ", ".join(arch for family in all_families() for arch in family.architectures)
    raise UnsupportedArchitecture(
        f"the architecture {name} is not known",
        hint=f"known are {known}; CONTRIBUTING.md tells how to add a family",
    )
