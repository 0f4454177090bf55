"""Measure the shipped demo files: `python -m training.evaluate` prints every figure of the model card."""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from circuit_tracer_cli.demo import DATA, PLACES, QUESTIONS
from training.measure_circuit import (
    UNIQUE_RELATIONS,
    choose_sets,
    interventions,
    place_features,
    places_with_feature,
    scoring_questions,
)
from training.measure_graphs import graph_figures
from training.measure_model import (
    Bench,
    accuracy,
    dallas_probability,
    feature_use,
    reconstruction,
    replacement,
)
from training.shipped import ShippedSet

Figures = dict[str, Any]
GOOD_F1 = 0.8
GRAPHS = 40


def measure(data: Path, graphs: int = GRAPHS) -> Figures:
    """All figures of the files under `data`, with so many graphs per group."""
    bench = Bench.load(data / "model")
    figures = measure_model(bench, data)
    for name in ("clt", "plt"):
        figures[name] = measure_set(bench, data, name, graphs)
    return figures


def measure_model(bench: Bench, data: Path) -> Figures:
    """The model's own figures, and the sizes of all files."""
    parts = ("model", "clt", "plt")
    return {
        "model": {"accuracy": accuracy(bench), "p_austin": dallas_probability(bench)},
        "bytes": {name: sum(file.stat().st_size for file in (data / name).glob("*.*")) for name in parts},
    }


def measure_set(bench: Bench, data: Path, name: str, graphs: int) -> Figures:
    """All figures of one transcoder set."""
    transcoders = ShippedSet.load(data / name)
    sets = {kind: choose_sets(bench, transcoders, kind) for kind in ("state", "country")}
    circuit = {}
    for kind, chosen in sets.items():
        f1 = places_with_feature(bench, transcoders, chosen, kind)
        circuit[kind] = {
            "places": len(f1),
            "with feature": sum(score >= GOOD_F1 for score in f1),
            **interventions(bench, transcoders, chosen, kind),
        }
    figures: Figures = {
        "replacement": replacement(bench, transcoders),
        "reconstruction": reconstruction(bench, transcoders),
        "use": feature_use(bench, transcoders),
        "circuit": circuit,
    }
    if graphs:
        figures["graphs"] = graph_figures(bench, data / "model", data / name, sets, graphs)
    return figures


@dataclass(frozen=True)
class Row:
    """One row of the table: what was required and what was measured (the worst of several values counts)."""

    name: str
    at_least: bool
    required: float
    values: tuple[float, ...]

    @property
    def met(self) -> bool:
        """Whether every value keeps the requirement."""
        return all(v >= self.required if self.at_least else v <= self.required for v in self.values)


def write_tables(data: Path) -> None:
    """Write the tables that the program reads: the questions of `demo --check`, and the features that stand for each place."""
    bench = Bench.load(data / "model")
    chosen = {}
    for name in ("clt", "plt"):
        transcoders = ShippedSet.load(data / name)
        sets = {kind: choose_sets(bench, transcoders, kind) for kind in ("state", "country")}
        chosen[name] = {kind: place_features(bench.corpus.names[kind], one) for kind, one in sets.items()}
    write_places(chosen, data)
    write_questions(data)


def write_places(chosen: dict[str, dict[str, dict[str, list[tuple[int, int, float]]]]], data: Path) -> None:
    """Write the features of all places, one place per line: set → kind → name → (layer, feature, value)."""
    lines = []
    for transcoders, kinds in chosen.items():
        inner = []
        for kind, named in kinds.items():
            rows = [f"{_json(name)}:{_json(features)}" for name, features in named.items()]
            inner.append(f"{_json(kind)}:{{\n" + ",\n".join(rows) + "\n}")
        lines.append(f"{_json(transcoders)}:{{" + ",\n".join(inner) + "}")
    (data / PLACES).write_text("{" + ",\n".join(lines) + "}\n", encoding="utf-8")


def write_questions(data: Path) -> None:
    """Write the two-hop questions about cities and in the wording that no feature was chosen on, one per line."""
    lines = [
        _json({"kind": kind, "relation": relation, **asdict(question)})
        for kind, relations in UNIQUE_RELATIONS.items()
        for relation in relations
        for question in scoring_questions(kind, relation)
    ]
    (data / QUESTIONS).write_text("[" + ",\n".join(lines) + "]\n", encoding="utf-8")


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def table_rows(figures: Figures) -> list[Row]:
    """The acceptance table for the model, then for each transcoder set."""
    right = figures["model"]["accuracy"]
    rows = [
        Row(
            "accuracy: city, attribute, trained two-hop, trained antonyms",
            True,
            0.99,
            tuple(right[name] for name in ("city", "attribute", "two_hop", "antonym")),
        ),
        Row("accuracy: two-hop, held-out pairs", True, 0.97, (right["two_hop held pairs"],)),
        Row("accuracy: two-hop, held-out cities", True, 0.93, (right["two_hop held cities"],)),
        Row("p(Austin) on the Dallas prompt", True, 0.9, (figures["model"]["p_austin"],)),
    ]
    for name in ("clt", "plt"):
        rows.extend(_set_rows(name, figures[name]))
    rows.append(
        Row("megabytes, without feature examples", False, 17, (sum(figures["bytes"].values()) / 1e6,))
    )
    return rows


def _set_rows(name: str, figures: Figures) -> list[Row]:
    rebuilt, replaced, state = figures["reconstruction"], figures["replacement"], figures["circuit"]["state"]
    pairs, cities = replaced["two_hop held pairs"], replaced["two_hop held cities"]
    answers = [
        rebuilt[group]["active"] for group in ("two_hop", "antonym", "attribute", "two_hop held pairs")
    ]
    rows = [
        ("active per layer at answers (worst task)", False, 20, tuple(map(max, zip(*answers, strict=True)))),
        ("active per layer overall", False, 10, tuple(rebuilt["overall"]["active"])),
        ("FVU per layer, pooled", False, 0.12, tuple(rebuilt["overall"]["fvu"])),
        ("FVU per layer at two-hop answers", False, 0.10, tuple(rebuilt["two_hop"]["fvu"])),
        ("FVU per layer at antonym answers", False, 0.30, tuple(rebuilt["antonym"]["fvu"])),
        ("MLPs replaced: accuracy, held-out pairs", True, 0.97, (pairs["accuracy"],)),
        ("MLPs replaced: accuracy, held-out cities", True, 0.92, (cities["accuracy"],)),
        ("MLPs replaced: KL, held-out pairs", False, 0.05, (pairs["kl"],)),
        ("MLPs replaced: KL, held-out cities", False, 0.10, (cities["kl"],)),
        ("never-active features, share per layer", False, 0.08, tuple(figures["use"]["never active"])),
        ("states with a feature of F1 >= .8 (of 50)", True, 45, (state["with feature"],)),
        (
            "swapping the state's features gives the other's answer",
            True,
            0.9,
            (state["swap gives other's answer"],),
        ),
        ("turning the state's features off changes the answer", True, 0.0, (state["off changes answer"],)),
    ]
    if "graphs" in figures:
        graphs = figures["graphs"]
        rows += [
            ("graph replacement score, two-hop", True, 0.85, (graphs["two_hop held pairs"]["replacement"],)),
            ("graph replacement score, antonyms", True, 0.75, (graphs["antonym"]["replacement"],)),
            (
                "strongest path of the city's token passes the place, held-out pairs",
                True,
                0.8,
                (graphs["two_hop held pairs"]["entity's strongest path through place"],),
            ),
        ]
    return [Row(f"{name}: {what}", up, float(need), tuple(map(float, got))) for what, up, need, got in rows]


def write_measured(figures: Figures, data: Path) -> None:
    """Write the figures as JSON, rounded to four decimals."""

    def rounded(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: rounded(inner) for key, inner in value.items()}
        if isinstance(value, list):
            return [rounded(inner) for inner in value]
        return round(value, 4) if isinstance(value, float) else value

    table = [
        {"measure": row.name, "required": row.required, "measured": list(row.values), "met": row.met}
        for row in table_rows(figures)
    ]
    text = json.dumps(rounded({"table": table, **figures}), indent=1, ensure_ascii=False)
    (data / "measured.json").write_text(text + "\n", encoding="utf-8")


def table_cells(figures: Figures) -> list[tuple[str, str, str, str]]:
    """The acceptance table as text."""
    cells = []
    for row in table_rows(figures):
        sign = "≥" if row.at_least else "≤"
        shown = " ".join(f"{value:.3f}".rstrip("0").rstrip(".") for value in row.values)
        cells.append((row.name, f"{sign} {row.required:g}", shown, "yes" if row.met else "no"))
    return cells


def print_table(figures: Figures, markdown: bool = False) -> None:
    """Print the acceptance table, for a terminal or for the model card."""
    header = ("measure", "required", "measured", "met")
    if markdown:
        for cells in (header, ("---",) * 4, *table_cells(figures)):
            print(f"| {' | '.join(cells)} |")
        return
    table = Table(*header)
    for cells in table_cells(figures):
        table.add_row(*cells)
    Console().print(table)


def main() -> None:
    """Measure, print, and write `measured.json`, `places.json` and `questions.json`."""
    parser = argparse.ArgumentParser(description="Measure the embedded demo's files.")
    parser.add_argument("--data-dir", type=Path, default=DATA)
    parser.add_argument("--graphs", type=int, default=GRAPHS, help="attribution graphs per group, 0 for none")
    parser.add_argument("--markdown", action="store_true", help="print the table for the model card")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    figures = measure(arguments.data_dir, arguments.graphs)
    write_measured(figures, arguments.data_dir)
    write_tables(arguments.data_dir)
    print_table(figures, arguments.markdown)


if __name__ == "__main__":
    main()
