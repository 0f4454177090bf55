"""The memory and time that a trace will need, computed from sizes before weights are read. Imports no torch."""

from __future__ import annotations

from circuit_tracer_cli.planning.memory import MemoryPlan
from circuit_tracer_cli.planning.plan import plan_memory
from circuit_tracer_cli.planning.sizes import Budget, Choices, DeviceBudget, TraceSizes
from circuit_tracer_cli.planning.work import Rates, plan_time

__all__ = [
    "Budget",
    "Choices",
    "DeviceBudget",
    "MemoryPlan",
    "Rates",
    "TraceSizes",
    "plan_memory",
    "plan_time",
]
