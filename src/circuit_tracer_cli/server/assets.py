"""Content types of the viewer's static files."""

from __future__ import annotations

from pathlib import Path

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


def media_type(path: Path) -> str:
    """The Content-Type of a static file."""
    return MEDIA_TYPES.get(path.suffix.lower(), "application/octet-stream")
