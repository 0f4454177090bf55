"""Which cases of a parametrised test `make test` runs, and which only the long suite does."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest


def some(cases: Iterable[Any], every: int) -> list[Any]:
    """All cases; those between each `every`-th are marked `long`."""
    return [case if index % every == 0 else _long(case) for index, case in enumerate(cases)]


def one_of(*cases: Any) -> list[Any]:
    """All cases; those after the first are marked `long`."""
    return some(cases, len(cases))


def _long(case: Any) -> Any:
    if isinstance(case, type(pytest.param())):
        return pytest.param(*case.values, marks=[*case.marks, pytest.mark.long], id=case.id)
    return pytest.param(*(case if isinstance(case, tuple) else (case,)), marks=pytest.mark.long)
