"""`table` and `query`: write graphs as Parquet, and query them with SQL."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from circuit_tracer_cli.cli import options as opt
from circuit_tracer_cli.cli.libraries import silence_libraries
from circuit_tracer_cli.cli.output import Output, number, visible

FolderArg = Annotated[str, typer.Argument(metavar="DIR", help="A batch's folder, or any folder with graphs.")]
OutOpt = Annotated[
    str | None,
    typer.Option("--output", "-o", metavar="DIR", show_default="DIR/tables", help="Folder for the tables."),
]
SqlArg = Annotated[
    str,
    typer.Argument(
        metavar="SQL", help="One SELECT over graphs, tokens, nodes, edges, heads and fingerprints."
    ),
]
CsvOpt = Annotated[bool, typer.Option("--csv", help="Print CSV instead of a table.")]


def table(
    folder: FolderArg, output_path: OutOpt = None, json_: opt.JsonOpt = False, quiet: opt.QuietOpt = False
) -> None:
    """Write the graphs of a folder as Parquet tables: graphs, tokens, nodes, edges, heads and fingerprints.

    DuckDB, polars, pandas and R can read them. Run it again when there are more graphs: only new ones are added.
    """
    output = Output(quiet=quiet)
    silence_libraries(output)
    from circuit_tracer_cli.many.tables import write_tables

    written = write_tables(Path(folder), None if output_path is None else Path(output_path))
    if json_:
        output.data({"tables": str(written.folder), "written": written.new})
        return
    output.result(f"{written.folder}: {written.new} graphs added")
    output.note(f'next: circuit-tracer query {folder} "select slug, prompt, target, probability from graphs"')


def query(
    folder: FolderArg,
    sql: SqlArg,
    json_: opt.JsonOpt = False,
    csv_: CsvOpt = False,
    quiet: opt.QuietOpt = False,
) -> None:
    """Run one read-only SQL query on the graphs of a folder.

    Writes tables first if they are missing or older than their graphs. Prints a table, JSON or CSV.
    """
    output = Output(quiet=quiet)
    silence_libraries(output)
    from circuit_tracer_cli.many import tables

    names, rows = tables.query(folder, sql)
    if json_:
        output.data(tables.as_records(names, rows))
    elif csv_:
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(names)
        writer.writerows(rows)
        output.result(text.getvalue().rstrip("\n"))
    else:
        numeric = [
            all(isinstance(row[i], (int, float)) for row in rows) and bool(rows) for i in range(len(names))
        ]
        columns = [f"{name}#" if is_number else name for name, is_number in zip(names, numeric, strict=True)]
        output.table("", columns, ([_cell(value) for value in row] for row in rows))
        _lead_to_a_graph(Path(folder), names, rows, output)


def _lead_to_a_graph(
    folder: Path, names: Sequence[str], rows: Sequence[Sequence[object]], output: Output
) -> None:
    """Say how to see the graph of a row, where rows say which graphs they are of and the viewer has files."""
    column = next((names.index(name) for name in ("slug", "graph") if name in names), None)
    graphs = folder / "graphs"
    if column is None or not rows or not any((graphs if graphs.is_dir() else folder).glob("*.json")):
        return
    which = str(rows[0][column]) if len(rows) == 1 else names[column].upper()
    output.note(f"next: circuit-tracer serve {folder} --graph {which}")


def _cell(value: object) -> str:
    if value is None:
        return ""
    return number(value) if isinstance(value, float) else visible(str(value))
