"""Finds the viewer's static files: inside the installed package, or in the checkout that it runs from."""

from __future__ import annotations

from pathlib import Path

from circuit_tracer_cli.errors import MissingFile

_PACKAGE = Path(__file__).resolve().parents[1]
_CANDIDATES = (_PACKAGE / "_static", _PACKAGE.parents[1] / "frontend_static")

MEDIA_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".mjs": "text/javascript; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".json": "application/json",
    ".svg": "image/svg+xml",
    ".png": "image/png",
    ".ico": "image/x-icon",
    ".woff2": "font/woff2",
    ".wasm": "application/wasm",
    ".txt": "text/plain; charset=utf-8",
}


def static_folder(chosen: str | Path | None = None) -> Path:
    """The folder that holds `index.html`.

    Args:
        chosen: A folder to use instead of the packaged one.

    Raises:
        MissingFile: There is no page in it.
    """
    for folder in _CANDIDATES if chosen is None else (Path(chosen),):
        if (folder / "index.html").is_file():
            return folder
    if chosen is not None:
        raise MissingFile(f"{chosen} holds no index.html", "leave the frontend folder away")
    raise MissingFile("the viewer's files aren't installed", "install the package again")


def media_type(path: Path) -> str:
    """The Content-Type of a static file."""
    return MEDIA_TYPES.get(path.suffix.lower(), "application/octet-stream")
