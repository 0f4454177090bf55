"""Device maps as users write them."""

from __future__ import annotations

import pytest
import torch

from circuit_tracer_cli.backends.devices import by_shares, check_device_map, in_words, place_layers
from circuit_tracer_cli.errors import InvalidType, InvalidValue

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def two_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda index: ((30e9, 80e9), (60e9, 80e9))[index])


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ("0-1:cuda:0, 2-4:cuda:1", "0-1:cuda:0,2-4:cuda:1"),
        ("2-4:cuda:1,0:cpu,1:cpu", "0-1:cpu,2-4:cuda:1"),
        ("cuda:0,cuda:1", "0-2:cuda:0,3-4:cuda:1"),
        ("cuda", "cuda:0"),
        ('{"0-1": "cuda:0", "2": 1, "3-4": "cpu"}', "0-1:cuda:0,2-2:cuda:1,3-4:cpu"),
        ({0: "cpu", "1-4": 1}, "0-0:cpu,1-4:cuda:1"),
        (["cpu", "cpu", "cpu", 0, 0], "0-2:cpu,3-4:cuda:0"),
        ("balanced", "0-0:cuda:0,1-4:cuda:1"),
        (" auto ", "0-0:cuda:0,1-4:cuda:1"),
    ],
)
def test_every_way_of_writing_one(given: object, words: str) -> None:
    placement = place_layers(given, 5)  # type: ignore[arg-type]
    assert str(placement) == words
    if isinstance(given, str):
        check_device_map(given)


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ("0-4:cuda:7", "cuda:7 is not available"),
        ("0-4:tpu", "unknown device 'tpu'"),
        ("0-4:disk", "layers can't be on 'disk'"),
        ("0-4:", "doesn't name a device"),
        ("0-2:cuda:0,cuda:1", "is not a range of layers"),
        ("4-0:cuda:0", "is reversed"),
        ('{"0-4": "cuda:0"', "isn't valid JSON"),
        ('{"a": "cuda:0"}', "'a' in the device map is not a range"),
        ('{"0-4": null}', "None in the device map is not a device"),
        ("0-4:auto", "not a device"),
    ],
)
def test_what_no_model_could_follow_is_refused_before_anything_is_read(given: str, says: str) -> None:
    with pytest.raises(InvalidValue, match=says):
        check_device_map(given)
    with pytest.raises(InvalidValue, match=says):
        place_layers(given, 5)


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ("0-3:cuda:0", "lacks layer 4; the model has layers 0 to 4"),
        ("0-5:cuda:0", "names layer 5, but the model has layers 0 to 4"),
        ("0-4:cuda:0,3:cuda:1", "names layer 3 twice"),
        (["cpu"], "names 1 devices, but the model has 5 layers"),
    ],
)
def test_what_does_not_fit_the_model_is_refused(given: object, says: str) -> None:
    with pytest.raises(InvalidValue, match=says):
        place_layers(given, 5)  # type: ignore[arg-type]


def test_no_device_map_at_all() -> None:
    with pytest.raises(InvalidType, match="text, a mapping or a list"):
        place_layers(5, 5)  # type: ignore[arg-type]


def test_shares_are_consecutive_and_leave_the_first_device_room() -> None:
    layers = by_shares([80e9, 80e9, 80e9], 30)
    assert in_words(layers) == "0-8:cuda:0,9-18:cuda:1,19-29:cuda:2"


def test_one_gpu_or_none_takes_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    assert place_layers("balanced", 3).devices == (torch.device("cuda"),)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    assert place_layers("auto", 3).layers == (CPU, CPU, CPU)
