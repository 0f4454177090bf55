"""docs/interventions.md: its commands run, its Python prints what it says, its requests get the replies that it shows."""

from __future__ import annotations

import contextlib
import io
import json
import re
import shlex
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient
from tests.cli.conftest import Run
from tests.cli.conftest import here as here
from tests.cli.conftest import run as run
from tests.server.builders import make_client

from circuit_tracer_cli.interventions.plan import plan_from_json
from circuit_tracer_cli.replacement import ReplacementModel
from circuit_tracer_cli.server.edits import RunRequest
from circuit_tracer_cli.server.model import ModelRunner
from circuit_tracer_cli.server.runs import ENDED, MOST_WAITING, RunQueue

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "interventions.md").read_text(encoding="utf-8")


def blocks(*languages: str) -> list[tuple[str, str]]:
    """Language and text of each block in these languages."""
    found = re.findall(r"```(\w+)\n(.*?)```", PAGE, re.DOTALL)
    return [(language, text) for language, text in found if language in languages]


def section(title: str) -> str:
    return PAGE[PAGE.index(f"## {title}") :].split("\n## ")[0]


@pytest.fixture
def in_repository(here: Path) -> Path:
    """A folder in which the page's relative paths hold."""
    shutil.copytree(ROOT / "demos" / "graphs", here / "demos" / "graphs")
    return here


def test_the_page_has_all_parts() -> None:
    for title in (
        "An edit",
        "What is frozen",
        "From Python",
        "From the viewer",
        "Validation",
        "Over HTTP",
    ):
        assert f"## {title}" in PAGE


def test_python_prints_what_the_page_says() -> None:
    names: dict[str, Any] = {}
    shown = [
        (language, text)
        for language, text in re.findall(r"```(\w+)\n(.*?)```", section("From Python"), re.DOTALL)
        if language in ("python", "text")
    ]
    assert [language for language, _ in shown] == ["python", "text"] * 3
    for (_, code), (_, expected) in zip(shown[::2], shown[1::2], strict=True):
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            exec(compile(code, "page", "exec"), names)
        assert printed.getvalue() == expected


def test_edits_of_the_page_can_be_read() -> None:
    from circuit_tracer_cli.interventions.spec import parse_intervention

    for position in re.findall(r"`([^`]*)`", section("An edit").split("`POSITION` |")[1].split("`VALUE`")[0]):
        parse_intervention(f"0/100@{position}=off")
    for value in ("4.5", "x2", "x-1", "off"):
        assert f"`{value}`" in section("An edit")
        parse_intervention(f"0/100@9={value}")


def test_the_plan_of_the_page_is_one() -> None:
    ((_, text),) = [block for block in blocks("json") if "circuit-tracer-plan" in block[1]]
    assert len(plan_from_json(text).edits) == 2


def test_what_the_first_command_prints(run: Run, in_repository: Path) -> None:
    lines = commands()
    done = run(*lines[0][0][1:])
    assert done.code == 0, done.stderr
    assert next(text for _, text in blocks("text")) in done.text
    assert "99.91%" in done.text
    assert "20.26%" in done.text


def commands() -> list[list[list[str]]]:
    """The words of each command line, by pipe segment."""
    lines = [line for _, block in blocks("sh") for line in block.replace("\\\n", " ").splitlines()]
    return [[shlex.split(part) for part in line.split(" | ")] for line in lines]


@pytest.mark.long
def test_every_command_runs(run: Run, in_repository: Path) -> None:
    for line in commands():
        piped = b""
        for words in line:
            done = run(*words[1:], stdin=piped)
            assert done.code == 0, f"{shlex.join(words)}: {done.stderr}"
            piped = done.stdout
    written = json.loads((in_repository / "graph_files" / "small.json").read_text(encoding="utf-8"))
    verdicts = {check["verdict"] for check in written["metadata"]["validation"]["checks"]}
    assert "fail" not in verdicts
    assert plan_from_json((in_repository / "texas.plan").read_text()).freeze_attention is True


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    runner = ModelRunner(model=ReplacementModel.from_pretrained("demo", "demo", device="cpu"))
    queue = RunQueue(runner)
    queue.start()
    yield make_client(tmp_path_factory.mktemp("graphs"), runs=queue)
    queue.close()


def over_http() -> list[Any]:
    """Model, request, first reply and result, as the page shows them."""
    return [json.loads(text) for text in re.findall(r"```json\n(.*?)```", section("Over HTTP"), re.DOTALL)]


def test_a_run_over_http_is_as_the_page_shows_it(client: TestClient) -> None:
    described, request, first, result = over_http()
    assert set(client.get("/api/model").json()) == set(described)
    reply = client.post("/api/runs", json=request)
    assert reply.status_code == 202
    assert set(reply.json()) == set(first)
    address = reply.headers["location"]
    assert address.startswith("api/runs/")
    while client.get(address).json()["state"] not in ENDED:
        pass
    found = client.get(address).json()
    assert found["state"] == "done"
    alike(found["result"], result)
    assert client.delete(address).json()["state"] == "done"


def alike(found: Any, shown: Any) -> None:
    """The same parts; numbers as far as they are shown."""
    if isinstance(shown, dict):
        assert set(found) == set(shown)
        for name, value in shown.items():
            alike(found[name], value)
    elif isinstance(shown, list):
        assert len(found) == len(shown)
        for one, other in zip(found, shown, strict=True):
            alike(one, other)
    elif isinstance(shown, float):
        assert found == pytest.approx(shown, rel=2e-3)
    else:
        assert found == shown


def test_the_page_names_every_part_of_a_request() -> None:
    text = section("Over HTTP")
    for name in RunRequest.model_fields:
        assert f"`{name}`" in text or f'"{name}"' in text, name
    assert f"{MOST_WAITING} runs" in text
