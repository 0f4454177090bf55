"""Finds the viewer's static files: inside the installed package, or in the checkout that it runs from."""

from __future__ import annotations

from pathlib import Path

from circuit_tracer_cli.errors import MissingFile

_PACKAGE = Path(__file__).resolve().parent
_CANDIDATES = (_PACKAGE / "_static", _PACKAGE.parents[1] / "frontend_static")


def static_folder(chosen: str | Path | None = None) -> Path:
    """Return the folder that contains `index.html`.

    Args:
        chosen: A folder to use instead of the packaged one.

    Raises:
        MissingFile: The folder has no page, or in a checkout the page's libraries aren't installed.
    """
    for folder in _CANDIDATES if chosen is None else (Path(chosen),):
        if not (folder / "index.html").is_file():
            continue
        if chosen is None and not (folder / "vendor").is_dir():
            raise MissingFile(
                "the viewer's libraries aren't installed", "with a network, run: pip install -e ."
            )
        return folder
    if chosen is not None:
        raise MissingFile(f"{chosen} has no index.html", "omit the option to use the packaged page")
    raise MissingFile("the viewer's files aren't installed", "install the package again")
