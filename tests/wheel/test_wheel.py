"""The built package, installed away from the checkout: it has the viewer and the demo, and needs nothing else."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tarfile
import urllib.request
import venv
import zipfile
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urljoin

import pytest

pytestmark = pytest.mark.long  # `make wheel` runs them

ROOT = Path(__file__).resolve().parents[2]
MEGABYTE = 1 << 20
# Where a page names another file, in HTML, JavaScript modules and style sheets.
NAMED = re.compile(
    r"""(?:\b(?:src|href)\s*=|\bfrom|\bimport\(?|\burl\()\s*["']?([\w./-]+\.(?:js|css|svg|json|png|ico))"""
)
OTHER_HOST = re.compile(r"""["'(]\s*(?:https?:)?//(?!www\.w3\.org/)[\w.-]+\.\w+""")


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the wheel and the sdist; the wheel is made from the sdist."""
    folder = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(folder), str(ROOT)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


@pytest.fixture(scope="module")
def wheel(built: Path) -> Path:
    return next(built.glob("*.whl"))


@pytest.fixture(scope="module")
def program(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The console script of a new environment that has the wheel, and borrows the dependencies of this one."""
    folder = tmp_path_factory.mktemp("clean")
    venv.create(folder, with_pip=False, symlinks=True)
    python = folder / "bin" / "python"
    command = [
        sys.executable,
        "-m",
        "pip",
        "--python",
        str(python),
        "install",
        "--no-deps",
        "--no-index",
        str(wheel),
    ]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    site = next(folder.glob("lib/python*/site-packages"))
    borrowed = [entry for entry in sys.path if entry.endswith("site-packages")]
    (site / "borrowed.pth").write_text("\n".join(borrowed))
    return folder / "bin" / "circuit-tracer"


@pytest.fixture
def clean_environment() -> dict[str, str]:
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    return {**environment, "CI": "true", "OMP_NUM_THREADS": "1"}


def test_the_wheel_has_all_that_running_needs(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    static = [path for path in (ROOT / "frontend_static").rglob("*") if path.is_file()]
    assert "LICENCES.txt" in {path.name for path in static}
    wanted = {f"circuit_tracer_cli/_static/{path.relative_to(ROOT / 'frontend_static')}" for path in static}
    wanted |= {"circuit_tracer_cli/py.typed", "circuit_tracer_cli/demo/data/prompts.json"}
    data = ROOT / "src" / "circuit_tracer_cli" / "demo" / "data"
    wanted |= {f"circuit_tracer_cli/demo/data/{p.relative_to(data)}" for p in data.rglob("*") if p.is_file()}
    assert wanted <= set(names)
    assert not [name for name in names if name.startswith(("tests", "docs", "scripts", "training"))]


def test_the_wheel_is_small(wheel: Path) -> None:
    assert wheel.stat().st_size < 25 * MEGABYTE
    demo = [entry for entry in zipfile.ZipFile(wheel).infolist() if "/demo/data/" in entry.filename]
    assert sum(entry.file_size for entry in demo) <= 20 * MEGABYTE


def test_the_sdist_has_the_viewer_and_the_tests(built: Path) -> None:
    with tarfile.open(next(built.glob("*.tar.gz"))) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    expected = {"frontend_static/index.html", "tests/conftest.py", "constraints.txt", "Makefile", "LICENSE"}
    expected |= {"hatch_build.py", "frontend_static/vendor/dagre.js", "scripts/vendor/package-lock.json"}
    expected |= {"training/README.md", "training/build.py"}
    assert expected <= names
    assert not [name for name in names if "__pycache__" in name or name.startswith(".venv")]


def test_the_program_runs_elsewhere(program: Path, tmp_path: Path, clean_environment: dict[str, str]) -> None:
    done = subprocess.run(
        [program, "--version"],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env=clean_environment,
        check=True,
    )
    assert done.stdout.startswith("circuit-tracer ")
    where = "import circuit_tracer_cli; print(circuit_tracer_cli.__file__)"
    python = program.with_name("python")
    shown = subprocess.run(
        [python, "-c", where], capture_output=True, text=True, cwd=tmp_path, env=clean_environment
    )
    assert str(program.parents[1]) in shown.stdout


def crawl(url: str) -> Iterator[tuple[str, str]]:
    """Every text that the page at `url` leads to, with its address."""
    queue, seen = [url], {url}
    while queue:
        address = queue.pop()
        with urllib.request.urlopen(address, timeout=10) as answer:
            assert answer.status == 200
            text = answer.read().decode("utf-8", "replace")
        yield address, text
        for name in NAMED.findall(text):
            found = urljoin(address, name)
            if found not in seen:
                seen.add(found)
                queue.append(found)


def test_the_demo_and_its_page_work_elsewhere(
    program: Path, tmp_path: Path, clean_environment: dict[str, str]
) -> None:
    demo = subprocess.run(
        [program, "demo"], capture_output=True, text=True, cwd=tmp_path, env=clean_environment
    )
    assert demo.returncode == 0, demo.stderr
    assert '" Austin"' in demo.stdout
    command = [program, "serve", tmp_path / "graph_files", "--port", "0"]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, cwd=tmp_path, env=clean_environment
    ) as server:
        assert server.stdout
        url = server.stdout.readline().strip()
        try:
            pages = dict(crawl(url))
            with urllib.request.urlopen(f"{url}api/graphs/demo-dallas", timeout=10) as answer:
                assert b'"nodes"' in answer.read()
        finally:
            server.terminate()
    modules = [address for address in pages if address.endswith(".js") and "/vendor/" not in address]
    written = [path for path in (ROOT / "frontend_static").rglob("*.js") if "vendor" not in path.parts]
    assert len(modules) == len(written)
    for address, text in pages.items():
        if address.endswith("/neuronpedia.js"):
            continue  # an address to follow, never to fetch
        assert not OTHER_HOST.search(text), address
