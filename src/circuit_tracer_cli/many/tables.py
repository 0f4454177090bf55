"""Graphs as Parquet tables that DuckDB, polars, pandas and R read, and SQL over them.

One file per graph and table, `TABLES/nodes/NAME.parquet`, so that a folder grows by adding files. Text columns are
denormalized: columns of a Parquet file are compressed, and every query needs only one table.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from circuit_tracer_cli.errors import (
    CircuitTracerError,
    InvalidValue,
    MissingExtra,
    OutputError,
    UnsuitableValue,
    UsageError,
)
from circuit_tracer_cli.files.atomic import output_error, write_bytes
from circuit_tracer_cli.graph.heads import link_extras
from circuit_tracer_cli.many.align import SLOTS_KEY
from circuit_tracer_cli.many.facts import KINDS, OBJECTS, Array, Facts, graph_files, read_facts
from circuit_tracer_cli.many.fingerprint import fingerprint
from circuit_tracer_cli.many.prompts import SETTINGS_NAME, listed_prompts

if TYPE_CHECKING:
    import duckdb

FOLDER = "tables"
TABLES = ("graphs", "tokens", "nodes", "edges", "fingerprints")
"""Tables with a file for every graph."""
HEADS_TABLE = "heads"
"""A table with files only for graphs that have heads (`circuit-tracer heads --all`)."""
MEMORY_LIMIT = "1GB"
"""What DuckDB may hold in memory; what a query needs beyond it waits in a temporary folder."""
_ENDS = {
    "kind": "VARCHAR",
    "layer": "SMALLINT",
    "feature": "INTEGER",
    "pos": "INTEGER",
    "slot": "INTEGER",
    "token": "INTEGER",
}
_HEAD_COLUMNS = {
    "graph": "VARCHAR",
    **{f"{end}_{name}": kind for end in ("source", "target") for name, kind in _ENDS.items()},
    "layer": "SMALLINT",
    "head": "SMALLINT",
    "from_pos": "INTEGER",
    "value": "FLOAT",
}


def columns_of(facts: Facts, extra: dict[str, Any] | None = None) -> dict[str, dict[str, Array]]:
    """The rows of one graph in each table, as arrays of equal length by column name.

    Args:
        facts: The graph.
        extra: Further columns of its row in `graphs`, such as those of a batch's prompt file.
    """
    slots = _slots(facts)
    names = np.array(KINDS, dtype=object)
    kind = names[facts.kind]
    slot = slots[facts.position]
    token = np.where(facts.kind >= 2, facts.feature, -1).astype(np.int32)
    feature = np.where(facts.kind >= 2, -1, facts.feature).astype(np.int32)
    n, n_edges = len(facts.kind), len(facts.source)

    def repeated(value: Any, count: int) -> Array:
        return np.full(count, value, dtype=object)

    def ends(index: Array, prefix: str) -> dict[str, Array]:
        return {
            f"{prefix}_kind": kind[index],
            f"{prefix}_layer": facts.layer[index].astype(np.int16),
            f"{prefix}_feature": feature[index],
            f"{prefix}_pos": facts.position[index].astype(np.int32),
            f"{prefix}_slot": slot[index].astype(np.int32),
            f"{prefix}_token": token[index],
        }

    return {
        "graphs": _one_row(facts, extra or {}),
        "tokens": {
            "graph": repeated(facts.name, facts.n_pos),
            "pos": np.arange(facts.n_pos, dtype=np.int32),
            "slot": slots.astype(np.int32),
            "token": facts.token_ids.astype(np.int32),
            "text": np.array(facts.tokens, dtype=object),
        },
        "nodes": {
            "graph": repeated(facts.name, n),
            "node": np.array(facts.ids, dtype=object),
            "kind": kind,
            "layer": facts.layer.astype(np.int16),
            "feature": feature,
            "pos": facts.position.astype(np.int32),
            "slot": slot.astype(np.int32),
            "token": token,
            "activation": facts.activation.astype(np.float32),
            "influence": facts.influence.astype(np.float32),
            "share": facts.share.astype(np.float32),
            "kept": facts.kept,
            "cumulative": facts.cumulative.astype(np.float32),
        },
        "edges": {
            "graph": repeated(facts.name, n_edges),
            **ends(facts.source, "source"),
            **ends(facts.target, "target"),
            "weight": facts.weight.astype(np.float32),
            "share": facts.edge_share.astype(np.float32),
            "flow": facts.flow.astype(np.float32),
            "stability": facts.edge_stability.astype(np.float32),
        },
        HEADS_TABLE: _heads(facts, repeated, ends),
        "fingerprints": {
            "graph": repeated(facts.name, 1),
            **{name: np.array([value]) for name, value in fingerprint(facts).items()},
        },
    }


def _heads(
    facts: Facts, repeated: Callable[[Any, int], Array], ends: Callable[[Array, str], dict[str, Array]]
) -> dict[str, Array]:
    """The strongest heads of each edge, one row each; empty for a graph without heads."""
    rows = [
        (source, target, *head)
        for (source, target), extra in link_extras(facts.metadata).items()
        for head in extra["heads"]
    ]
    source, target, layer, head, position = (
        np.array([row[column] for row in rows], dtype=np.int64) for column in range(5)
    )
    return {
        "graph": repeated(facts.name, len(rows)),
        **ends(source, "source"),
        **ends(target, "target"),
        "layer": layer.astype(np.int16),
        "head": head.astype(np.int16),
        "from_pos": position.astype(np.int32),
        "value": np.array([row[5] for row in rows], dtype=np.float32),
    }


def _slots(facts: Facts) -> Array:
    """Slot of each position: from the template if the graph has one, else the position."""
    template = facts.metadata.get(SLOTS_KEY)
    if isinstance(template, list) and len(template) == facts.n_pos:
        number = {name: i for i, name in enumerate(dict.fromkeys(template))}
        return np.array([number[name] for name in template])
    return np.arange(facts.n_pos)


def _one_row(facts: Facts, extra: dict[str, Any]) -> dict[str, Array]:
    """The row of the table of graphs. Columns from the user begin with `x_`."""
    model = facts.metadata.get("model")
    values: dict[str, Any] = {
        "graph": facts.name,
        "prompt": facts.prompt,
        "slug": str(extra.get("slug") or facts.metadata.get("slug") or facts.name),
        "group": None if extra.get("group") is None else str(extra["group"]),
        "model": model if isinstance(model, str) else "",
        "set": facts.scan,
        "n_tokens": facts.n_pos,
        "n_layers": facts.n_layers,
        "n_features": int(((facts.kind == 0) & facts.kept).sum()),
        "n_nodes": int(facts.kept.sum()),
        "n_edges": len(facts.source),
        "replacement": facts.replacement,
        "completeness": facts.completeness,
        "target": facts.targets[0][0] if facts.targets else "",
        "target_token": facts.targets[0][1] if facts.targets else -1,
        "probability": facts.targets[0][2] if facts.targets else float("nan"),
        "whole": facts.whole,
    }
    for name, value in extra.items():
        if name not in ("slug", "group", "prompt", "n_tokens", SLOTS_KEY):
            values[f"x_{name}"] = None if value is None else str(value)
    typed = {str: object, int: np.int64, float: np.float64, bool: np.bool_, type(None): object}
    return {name: np.array([value], dtype=typed[type(value)]) for name, value in values.items()}


@dataclass(frozen=True, slots=True)
class Written:
    """Tables of a folder's graphs.

    Attributes:
        folder: Their folder.
        graphs: Names of their graphs; None for all in the folder.
        new: Number of graphs that were added.
    """

    folder: Path
    graphs: tuple[str, ...] | None
    new: int


def write_tables(folder: Path, out: Path | None = None) -> Written:
    """Write the tables of a folder's graphs, except those that are newer than their graph.

    Args:
        folder: A batch's folder, or any folder with graphs. A batch that keeps only tables has them already.
        out: Folder to write to; None for `tables/` in the folder.

    Raises:
        MissingExtra: DuckDB isn't installed.
        MissingFile: No such folder, or no graph in it.
        OutputError: The tables can't be written.
        UnsuitableValue: Another folder is named for a batch that keeps only tables.
    """
    connection = connect()
    kept = folder / FOLDER
    if (folder / SETTINGS_NAME).exists() and not (folder / OBJECTS).is_dir() and _has_tables(kept):
        if out is not None and out.resolve() != kept.resolve():
            raise UnsuitableValue(f"the batch kept only tables, in {kept}", f"copy {kept} to {out}")
        return Written(kept, None, 0)
    out = kept if out is None else out
    extras = listed_prompts(folder)
    names, new = [], 0
    for path in graph_files(folder):
        names.append(path.stem)
        files = {table: out / table / f"{path.stem}.parquet" for table in TABLES}
        changed = path.stat().st_mtime_ns
        if all(file.exists() and file.stat().st_mtime_ns >= changed for file in files.values()):
            continue
        facts = read_facts(path)
        write_graph_tables(facts, out, extras.get(facts.name), connection)
        new += 1
    return Written(out, tuple(names), new)


def write_graph_tables(
    facts: Facts,
    out: Path,
    extra: dict[str, Any] | None = None,
    connection: duckdb.DuckDBPyConnection | None = None,
) -> None:
    """Write the tables of one graph, its row in `graphs` last, so that readers of it find the others.

    Raises MissingExtra, OutputError.
    """
    connection = connect() if connection is None else connection
    columns = columns_of(facts, extra)
    for table in sorted(columns, key=lambda name: name == "graphs"):
        if table == HEADS_TABLE and not len(columns[table]["graph"]):
            _remove(out / table / f"{facts.name}.parquet")  # from an earlier graph of this name
            continue
        _write_parquet(connection, columns[table], out / table / f"{facts.name}.parquet")


def _remove(path: Path) -> None:
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        raise output_error(path, error) from error


def _write_parquet(connection: duckdb.DuckDBPyConnection, columns: dict[str, Array], path: Path) -> None:
    """Write one Parquet file atomically. Raises OutputError."""
    import duckdb

    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix="circuit-tracer-") as scratch:
            part = Path(scratch) / "part.parquet"
            connection.register("columns_of_one_graph", columns)
            target = str(part).replace("'", "''")
            connection.execute(
                f"COPY (SELECT * FROM columns_of_one_graph) TO '{target}' (FORMAT parquet, COMPRESSION zstd)"
            )
            connection.unregister("columns_of_one_graph")
            write_bytes(path, part.read_bytes())
    except OSError as error:
        raise output_error(path, error) from error
    except duckdb.Error as error:
        raise OutputError(
            f"can't write {path}: {_first_line(error)}", "use a writable folder with -o"
        ) from error


def connect() -> duckdb.DuckDBPyConnection:
    """A connection to an empty database in memory. Raises MissingExtra."""
    try:
        import duckdb
    except ImportError as error:
        raise MissingExtra(
            "tables need DuckDB, which isn't installed", "pip install 'circuit-tracer-cli[tables]'"
        ) from error
    spill = Path(tempfile.gettempdir()) / f"circuit-tracer-duckdb-{os.getpid()}-{os.urandom(4).hex()}"
    return duckdb.connect(
        config={
            "autoinstall_known_extensions": "false",
            "autoload_known_extensions": "false",
            "memory_limit": MEMORY_LIMIT,
            "temp_directory": str(spill),  # made when it's needed and removed by DuckDB
        }
    )


def tables(folder: str | os.PathLike[str]) -> duckdb.DuckDBPyConnection:
    """Return the tables of a folder's graphs as views `graphs`, `tokens`, `nodes`, `edges`, `heads` and `fingerprints` of DuckDB.

    Missing or outdated tables are written first. The connection can read nothing else.

    Args:
        folder: A batch's folder, any folder with graphs, or a folder written by `circuit-tracer table`.

    Raises:
        MissingExtra: DuckDB isn't installed.
        MissingFile: No such folder, or no graph in it.
        OutputError: The tables are missing and can't be written.
    """
    path = Path(folder)
    written = Written(path, None, 0) if _has_tables(path) else write_tables(path)
    where = written.folder
    connection = connect()
    for table in TABLES:
        files = ["*"] if written.graphs is None else written.graphs
        paths = [str((where / table).resolve() / f"{name}.parquet").replace("'", "''") for name in files]
        among = ", ".join(f"'{one}'" for one in paths)
        connection.execute(
            f"CREATE VIEW {table} AS SELECT * FROM read_parquet([{among}], union_by_name = true)"
        )
    connection.execute(_heads_view(where / HEADS_TABLE, written.graphs))
    allowed = str(where.resolve()).replace("'", "''")
    connection.execute(f"SET allowed_directories = ['{allowed}']")
    connection.execute("SET enable_external_access = false")
    connection.execute("SET lock_configuration = true")
    return connection


def _heads_view(folder: Path, graphs: Sequence[str] | None) -> str:
    """SQL of the view of heads: over the graphs with heads, else an empty one with the same columns."""
    wanted = None if graphs is None else set(graphs)
    found = sorted(path for path in folder.glob("*.parquet") if wanted is None or path.stem in wanted)
    if not found:
        empty = ", ".join(f"NULL::{kind} AS {name}" for name, kind in _HEAD_COLUMNS.items())
        return f"CREATE VIEW {HEADS_TABLE} AS SELECT {empty} WHERE false"
    paths = ", ".join("'" + str(path.resolve()).replace("'", "''") + "'" for path in found)
    return f"CREATE VIEW {HEADS_TABLE} AS SELECT * FROM read_parquet([{paths}], union_by_name = true)"


def _has_tables(folder: Path) -> bool:
    return all((folder / table).is_dir() for table in TABLES)


def query(folder: str | os.PathLike[str], sql: str) -> tuple[list[str], list[tuple[Any, ...]]]:
    """Return column names and rows of a read-only SQL query over a folder's tables.

    Raises:
        UsageError: The text isn't one SELECT.
        CircuitTracerError: DuckDB refused the query, or as raised by `tables`.
    """
    import contextlib

    connection = tables(folder)
    import duckdb

    with contextlib.closing(connection):
        try:
            statements = connection.extract_statements(sql)
        except duckdb.Error as error:
            raise InvalidValue(f"the query isn't valid SQL for DuckDB: {_first_line(error)}") from error
        if [statement.type for statement in statements] != [duckdb.StatementType.SELECT]:
            raise UsageError("a query must be a single SELECT", "for example: select * from graphs")
        try:
            found = connection.execute(statements[0])
            names = [column[0] for column in found.description or ()]
            return names, found.fetchall()
        except duckdb.Error as error:
            raise CircuitTracerError(
                f"the query failed: {_first_line(error)}",
                f'the tables are {", ".join((*TABLES, HEADS_TABLE))}; "describe nodes" lists columns in DuckDB',
            ) from error


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0]


def as_records(names: Sequence[str], rows: Iterable[Sequence[Any]]) -> list[dict[str, Any]]:
    """Rows as objects; non-finite floats become None."""

    def plain(value: Any) -> Any:
        if isinstance(value, float) and not np.isfinite(value):
            return None
        if isinstance(value, list):
            return [plain(one) for one in value]
        if isinstance(value, dict):
            return {str(key): plain(one) for key, one in value.items()}
        return value if isinstance(value, (str, int, float, bool, type(None))) else str(value)

    return [{name: plain(value) for name, value in zip(names, row, strict=True)} for row in rows]
