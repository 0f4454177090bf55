"""Direct effects on the reference's tiny models: every set that is there, measured columns against the adjacency matrix."""

from __future__ import annotations

from pathlib import Path

import pytest

from circuit_tracer_cli.attribution.attribute import attribute
from circuit_tracer_cli.replacement import ReplacementModel
from circuit_tracer_cli.validation.direct import measure_direct_effects
from circuit_tracer_cli.validation.statistics import sample
from circuit_tracer_cli.validation.subject import Subject
from tests.cases import some

GOLDEN = Path(__file__).resolve().parents[2] / ".." / "shared" / "golden"
SETS = sorted(path.name for path in (GOLDEN / "transcoders").glob("*"))

pytestmark = pytest.mark.skipif(not SETS, reason="the golden data isn't beside this checkout")


@pytest.mark.parametrize("name", some(SETS, 3))
def test_columns_are_measured_effects(name: str) -> None:
    folder = (GOLDEN / "transcoders" / name).resolve()
    model = ReplacementModel.from_pretrained(
        str(GOLDEN.resolve() / "models" / name.split("-")[0]), str(folder), device="cpu"
    )
    graph = attribute("The capital of the state", model)
    subject = Subject(graph, model)
    nodes = {kind: sample(subject.nodes(kind), 5, seed=0) for kind in ("feature", "error", "token")}
    found = measure_direct_effects(subject, nodes)
    assert found.agrees
    assert found.max_absolute_error < 5e-5
    assert found.n_entries == 15 * (graph.layout.n_features + graph.layout.n_logits)
