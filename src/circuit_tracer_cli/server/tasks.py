"""The tasks of the server's model: one line per address of a POST request, one file per idea.

A task is a function from the desk, the request's body and its path parameters to the work, which goes to the queue. The task
raises UsageError for an invalid request; the work raises CircuitTracerError for what is only found later.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from circuit_tracer_cli.server.attention import plan_heads, plan_qk
from circuit_tracer_cli.server.edits import plan_edits
from circuit_tracer_cli.server.hidden import plan_expand, plan_hidden
from circuit_tracer_cli.server.model import Desk
from circuit_tracer_cli.server.runs import Plan, Work
from circuit_tracer_cli.server.traces import plan_predictions, plan_trace

TASKS: dict[str, Callable[[Desk, Any, Mapping[str, Any]], Work]] = {
    "/api/runs": plan_edits,
    "/api/traces": plan_trace,
    "/api/predictions": plan_predictions,
    "/api/attention/heads": plan_heads,
    "/api/attention/qk": plan_qk,
    "/api/hidden": plan_hidden,
    "/api/expand": plan_expand,
}


def plans(desk: Desk | None) -> dict[str, Plan | None]:
    """Return the tasks of a desk by address; each is None without a model."""
    return {path: None if desk is None else partial(task, desk) for path, task in TASKS.items()}
