"""Labels and examples of other makers become records that the viewer reads."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from circuit_tracer_cli.cli.app import run
from circuit_tracer_cli.errors import BadFeatureFiles, MissingFile
from circuit_tracer_cli.features.imported import CONTEXT, EXAMPLES, FeatureImport
from circuit_tracer_cli.features.packed import FeatureFiles
from circuit_tracer_cli.server.features import FeatureFolder

SOURCE = "20-gemmascope-transcoder-16k"


def write_lines(path: Path, *rows: dict[str, Any]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    content = "\n".join(json.dumps(row) for row in rows).encode()
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)
    return path


def activation(index: int, peak: float, at: int = 1, length: int = 4, **more: Any) -> dict[str, Any]:
    values = [0.0] * length
    values[at] = peak
    tokens = [f" t{i}" for i in range(length)]
    return {
        "modelId": "gemma-2-2b",
        "layer": SOURCE,
        "index": str(index),
        "tokens": tokens,
        "values": values,
        **more,
    }


def explanation(index: int, text: str, made: str, **more: Any) -> dict[str, Any]:
    return {
        "modelId": "gemma-2-2b",
        "layer": SOURCE,
        "index": str(index),
        "description": text,
        "createdAt": made,
        **more,
    }


@pytest.fixture
def export(tmp_path: Path) -> Path:
    """A source of Neuronpedia's exports as it is downloaded."""
    root = tmp_path / "v1" / "gemma-2-2b" / SOURCE
    of_feature = {
        "modelId": "gemma-2-2b",
        "layer": SOURCE,
        "index": "7",
        "maxActApprox": 9.5,
        "pos_str": [" Texas", "TX"],
        "neg_str": [" Oslo"],
        "frac_nonzero": 0.0125,
        "freq_hist_data_bar_heights": [30, 5, 1],
        "freq_hist_data_bar_values": [1.0, 3.0, 5.0],
    }
    write_lines(root / "features" / "batch-0.jsonl.gz", of_feature)
    write_lines(
        root / "activations" / "batch-0.jsonl.gz",
        *(activation(7, float(1 + i), at=90, length=200) for i in range(30)),
        activation(7, 2.0, binMin=1.0, binMax=3.0),
        activation(2, 4.0),
    )
    write_lines(
        root / "explanations" / "batch-0.jsonl.gz",
        explanation(
            7, "  cities of\nTexas ", "2025-02-01", explanationModelName="gpt-4o-mini", typeName="oai"
        ),
        explanation(7, "older", "2024-01-01"),
    )
    write_lines(root / "source.jsonl", {"id": SOURCE})
    return root.parent


def test_neuronpedias_export_becomes_records_of_the_viewer(export: Path, tmp_path: Path) -> None:
    reading = FeatureImport()
    reading.read(export)
    summary = reading.write(tmp_path / "out")
    assert (summary.features, summary.labels, summary.statistics, summary.layers) == (2, 1, 1, (20,))
    record = FeatureFolder(tmp_path / "out").record(20, 7)
    assert record is not None
    assert record["label"]["text"] == "cities of Texas"
    assert record["label"]["provenance"] == "imported: gpt-4o-mini, oai"
    assert (record["top_logits"], record["bottom_logits"]) == ([" Texas", "TX"], [" Oslo"])
    assert (record["activation_frequency"], record["histogram"]) == (0.0125, [30.0, 5.0, 1.0])
    assert (record["act_min"], record["act_max"]) == (0.0, 6.0)
    top, middle = record["examples_quantiles"]
    assert [top["quantile_name"], middle["quantile_name"]] == ["Top activations", "Activations 1 to 3"]
    peaks = [max(one["tokens_acts_list"]) for one in top["examples"]]
    assert peaks == [float(value) for value in range(30, 30 - EXAMPLES, -1)]
    first = top["examples"][0]
    assert len(first["tokens"]) == CONTEXT
    assert first["tokens_acts_list"][first["train_token_ind"]] == 30.0
    assert first["tokens"][first["train_token_ind"]] == " t90"
    assert FeatureFolder(tmp_path / "out").record(20, 3) is None


def test_the_command_takes_the_features_of_a_graph_and_keeps_what_is_there(
    export: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, table = tmp_path / "out", tmp_path / "labels.csv"
    table.write_text("\ufefflayer,feature,label\r\n20,2,two\r\n1,5,five\r\n")
    assert run(["features", "import", str(table), "-o", str(out)]) == 0
    graph = tmp_path / "g.json"
    node = {
        "node_id": "20_7_1",
        "feature": 385,
        "layer": "20",
        "ctx_idx": 1,
        "feature_type": "cross layer transcoder",
    }
    metadata = {"slug": "g", "scan": "s", "prompt_tokens": ["a", "b"], "prompt": "ab"}
    graph.write_text(json.dumps({"metadata": metadata, "qParams": {}, "nodes": [node], "links": []}))
    capsys.readouterr()
    assert run(["features", "import", str(export), "--graph", str(graph), "-o", str(out), "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert (printed["features"], printed["labels"], printed["skipped"]) == (1, 1, 1)
    files = FeatureFiles(out)
    assert {key: label["text"] for key, label in files.labels().items()} == {
        "20/2": "two",
        "1/5": "five",
        "20/7": "cities of Texas",
    }
    two = files.feature(20, 2)
    assert (two["label"]["text"], two["examples_quantiles"]) == ("two", [])
    assert run(["features", "info", str(out)]) == 0


def test_dashboards_api_files_and_delphi_are_read(tmp_path: Path) -> None:
    batch = {
        "feature_index": 3,
        "pos_str": [" a"],
        "activations": [{"tokens": ["x", "y"], "values": [0, 2.5], "bin_min": -1, "bin_max": -1}],
    }
    (tmp_path / "batch-0.json").write_text(
        json.dumps({"model_id": "m", "layer": 4, "sae_set": "s", "features": [batch]})
    )
    api = {
        "layer": "5-s",
        "index": "1",
        "frac_nonzero": 0.5,
        "explanations": [{"description": "one", "scores": [{"value": 0.75}]}],
    }
    (tmp_path / "api.json").write_text(json.dumps(api))
    (tmp_path / "layers.6.mlp_latent8.txt").write_text('"days of the week"')
    reading = FeatureImport()
    for path in sorted(tmp_path.iterdir()):
        reading.read(path)
    reading.write(tmp_path / "out")
    files = FeatureFiles(tmp_path / "out")
    assert files.feature(4, 3)["examples_quantiles"][0]["examples"][0]["train_token_ind"] == 1
    assert files.feature(4, 3)["act_max"] == 2.5
    assert files.label(5, 1) == {"text": "one", "provenance": "imported: Neuronpedia", "confidence": 0.75}
    assert (files.label(6, 8) or {})["text"] == "days of the week"


@pytest.mark.parametrize(
    ("name", "content", "part"),
    [
        ("a.jsonl", '{"layer": "1-s", "index": "2", "x": 1}', "line 1: the row is neither"),
        ("a.jsonl", '{"layer": "one", "index": "2", "description": "x"}', "layer 'one'"),
        ("a.jsonl", "{", "line 1: this isn't JSON"),
        ("a.jsonl", '{"layer": 1, "index": 2, "tokens": ["a"], "values": [1, 2]}', "1 tokens with 2 values"),
        ("a.jsonl.gz", "plain", "can't be read"),
        ("a.csv", "layer,label\n1,x\n", "lacks a column"),
        ("a_latent1.txt", "x", "one number before _latent"),
        ("a.parquet", "x", "of no kind that is understood"),
    ],
)
def test_what_is_not_understood_is_named_and_nothing_is_written(
    tmp_path: Path, name: str, content: str, part: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / name).write_text(content)
    assert run(["features", "import", str(tmp_path / name), "-o", str(tmp_path / "out")]) == 1
    assert part in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_two_sources_of_a_layer_need_a_choice(tmp_path: Path) -> None:
    rows = [{"layer": f"20-{name}", "index": "1", "description": name} for name in ("res", "transcoder")]
    path = write_lines(tmp_path / "a.jsonl", *rows)
    with pytest.raises(BadFeatureFiles, match="two sources, 20-res and 20-transcoder"):
        FeatureImport().read(path)
    reading = FeatureImport(source="transcoder")
    reading.read(path)
    reading.write(tmp_path / "out")
    assert (FeatureFiles(tmp_path / "out").label(20, 1) or {})["text"] == "transcoder"
    with pytest.raises(MissingFile, match="nothing of the features"):
        FeatureImport(wanted={(3, 3)}).write(tmp_path / "other")
