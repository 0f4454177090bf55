"""`doctor --models`: the models that can be traced, and their properties."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from circuit_tracer_cli.backends.support import PROOFS, Support, supported
from circuit_tracer_cli.cli.output import Output


def show_models(output: Output, *, as_json: bool) -> None:
    """Print the table, or its records as JSON."""
    rows = supported()
    if as_json:
        output.data(model_records(rows))
        return
    output.table(
        "Models", ("models", "class", "norms in a block"), [(r.models, r.architecture, r.norms) for r in rows]
    )
    output.result()
    output.table("What is special", ("", ""), [(r.models, r.special) for r in rows if r.special])
    output.result()
    hooks = dict.fromkeys(hook for row in rows for hook in (*row.feature_inputs, *row.feature_outputs))
    output.table("Feature hooks", ("", ""), [(hook, _who_has(hook, rows)) for hook in hooks])
    output.result()
    engines = dict.fromkeys(row.engine for row in rows)
    entries = [(f"{name} engine", _names([r for r in rows if r.engine == name], rows)) for name in engines]
    entries += [(name, _names([r for r in rows if name in r.backends], rows)) for name in rows[0].backends]
    output.table("Runs", ("", ""), entries)
    output.result()
    output.table("Tested, for every model and backend", ("", ""), list(PROOFS.items()))
    output.result()


def model_records(rows: list[Support]) -> dict[str, Any]:
    """Return the table for JSON."""
    return {"models": [asdict(row) for row in rows], "proofs": PROOFS}


def _who_has(hook: str, rows: list[Support]) -> str:
    return _names([row for row in rows if hook in (*row.feature_inputs, *row.feature_outputs)], rows)


def _names(some: list[Support], rows: list[Support]) -> str:
    """Return a short description of a list of models."""
    if len(some) == len(rows):
        return "all"
    missing = [row.models for row in rows if row not in some]
    return f"all but {', '.join(missing)}" if len(missing) < len(some) else ", ".join(r.models for r in some)
