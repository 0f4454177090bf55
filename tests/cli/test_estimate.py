"""`estimate` as a command."""

from __future__ import annotations

import json
from types import SimpleNamespace

import pytest

from circuit_tracer_cli.planning import Rates

from .conftest import Run

PROMPT = "Fact: the capital of the state containing Dallas is"


def test_a_table_that_fits_a_terminal(run: Run) -> None:
    done = run("estimate", "--prompt", PROMPT)
    assert done.code == 0, done.stderr
    lines = done.text.splitlines()
    assert lines[0].startswith("prompt       11 tokens")
    assert any(line.startswith("rows") for line in lines)
    assert max(map(len, lines)) <= 80


def test_json_grows_with_the_prompt(run: Run) -> None:
    short, long = [
        json.loads(run("estimate", "--tokens", n, "-t", "demo-plt", "--json").stdout) for n in (8, 64)
    ]
    assert short["tokens"] == 8
    assert long["active_features"] > short["active_features"]
    assert long["host_peak_bytes"] > short["host_peak_bytes"]
    assert long["fits"] is True
    assert set(long["seconds"]) <= set(long["phase_peak_bytes"])


def test_devices_that_share_the_layers_are_told_one_by_one(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (2**33, 2**33))
    facts = SimpleNamespace(multi_processor_count=132)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: facts)
    monkeypatch.setattr("circuit_tracer_cli.planning.rates.measure_rates", lambda device: Rates(1e12, 1e10))
    words = ("estimate", "--tokens", 8, "--device-map", "0-1:cuda:0,2-4:cuda:1")
    done = run(*words)
    assert done.code == 0, done.stderr
    assert "MiB of 8.0 GiB free for 3 layers" in done.text
    found = json.loads(run(*words, "--json").stdout)
    assert [(device["name"], device["layers"]) for device in found["devices"]] == [
        ("cuda:0", 2),
        ("cuda:1", 3),
    ]
    assert found["device"] == "0-1:cuda:0,2-4:cuda:1"


@pytest.mark.parametrize(
    ("arguments", "code", "part"),
    [
        (["--tokens", "5", "--device-map", "0-4:cpu", "--device", "cpu"], 2, "--device and --device-map"),
        (["--tokens", "5", "--device-map", "0-4:tpu"], 2, "unknown device 'tpu'"),
        (["--tokens", "5", "--device-map", "0-2:cpu"], 1, "lacks layer 3"),
        (["--prompt", "x", "--tokens", "5"], 2, "--tokens"),
        (["--tokens", "1"], 2, "tokens"),
        (["--tokens", "65"], 1, "at most 64"),
        (["--active", "nan", "--tokens", "5"], 2, "active"),
        (["--tokens", "5", "-t", "./nowhere"], None, "nowhere"),
        (["--tokens", "5", "-m", "./nowhere"], None, "nowhere"),
    ],
)
def test_bad_input(run: Run, arguments: list[str], code: int | None, part: str) -> None:
    done = run("estimate", *arguments)
    assert done.code == code if code is not None else done.code in (1, 2)
    assert done.stderr.startswith("error: ")
    assert part in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
@pytest.mark.parametrize("end", [b"", b"\n", b"\r\n"])
def test_a_piped_prompt_is_the_one_that_was_written(run: Run, mark: bytes, end: bytes) -> None:
    done = run("estimate", "--prompt", "-", "--json", stdin=mark + PROMPT.encode() + end)
    assert json.loads(done.stdout)["tokens"] == 11


def test_an_endless_prompt_is_refused(run: Run) -> None:
    done = run("estimate", "--prompt", "-", stdin=b"a" * (17 << 20))
    assert done.code == 1
    assert "stdin is larger" in done.stderr
