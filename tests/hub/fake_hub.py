"""A server on this machine that speaks the hub's API: trees, redirects to blobs, ranges, and every way to refuse."""

from __future__ import annotations

import hashlib
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit

LARGE = 200  # bytes from which a file lies behind a redirect, as large files do on the hub


@dataclass
class Repository:
    """Files at one commit. `gated` and `private` ones want the token `let-me-in`."""

    files: dict[str, bytes]
    gated: bool = False
    private: bool = False
    commit: str = "c" * 40
    revisions: tuple[str, ...] = ("main", "v1")


@dataclass
class FakeHub:
    """What the server has, what it was asked for, and how it misbehaves."""

    repositories: dict[str, Repository] = field(default_factory=dict)
    requests: list[str] = field(default_factory=list)  # "METHOD path", in order
    ranges: list[str] = field(default_factory=list)
    cuts: list[int] = field(default_factory=list)  # so many bytes into the next blobs, the connection breaks
    status: int | None = None  # every answer's, if set
    page: bytes = b""  # what a captive portal answers to everything
    blob_status: int | None = None
    ignores_ranges: bool = False
    url: str = ""
    blob_url: str = ""  # the same server under another name, as the hub's blobs lie on other hosts
    leaked_tokens: list[str] = field(default_factory=list)  # what the blobs' host was sent and must not see

    def asked(self, pattern: str) -> list[str]:
        return [request for request in self.requests if re.search(pattern, request)]

    def blob(self, digest: str) -> bytes | None:
        for repository in self.repositories.values():
            for body in repository.files.values():
                if hashlib.sha256(body).hexdigest() == digest:
                    return body
        return None


@contextmanager
def serving(hub: FakeHub) -> Iterator[FakeHub]:
    handler = type("Handler", (_Handler,), {"hub": hub})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    hub.url = f"http://127.0.0.1:{server.server_port}"
    hub.blob_url = f"http://localhost:{server.server_port}"
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Handler(BaseHTTPRequestHandler):
    hub: FakeHub
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: object) -> None:
        pass

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def _answer(self) -> None:
        path = unquote(urlsplit(self.path).path)
        self.hub.requests.append(f"{self.command} {path}")
        if self.headers.get("Range"):
            self.hub.ranges.append(f"{path} {self.headers['Range']}")
        if self.hub.status is not None:
            return self._send(self.hub.status, b"")
        if self.hub.page:
            return self._send(200, self.hub.page, headers={"Content-Type": "text/html"})
        if match := re.fullmatch(r"/blobs/(\w+)", path):
            return self._blob(match[1])
        if match := re.fullmatch(r"/api/models/([^/]+/[^/]+)(?:/(revision|tree)/([^/]+))?(?:/.*)?", path):
            return self._api(match[1], match[2], match[3] or "main")
        if match := re.fullmatch(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path):
            return self._resolve(match[1], match[2], match[3])
        return self._send(404, b"")

    def _repository(self, name: str, revision: str, *, wants_file: bool = False) -> Repository | None:
        """The repository, or None after an answer that refuses it."""
        token = self.headers.get("Authorization")
        if token not in {None, "Bearer let-me-in", "Bearer other"}:
            self._send(
                401,
                b'{"error": "Invalid credentials in Authorization header"}',
                "",
                message="Invalid credentials in Authorization header",
            )
            return None
        found = self.hub.repositories.get(name)
        if found is None or (found.private and token != "Bearer let-me-in"):
            self._send(404 if token else 401, b"", "RepoNotFound")
        elif found.gated and wants_file and token != "Bearer let-me-in":
            self._send(403 if token else 401, b"", "GatedRepo")
        elif revision not in {found.commit, *found.revisions}:
            self._send(404, b"", "RevisionNotFound")
        else:
            return found
        return None

    def _api(self, name: str, what: str | None, revision: str) -> None:
        found = self._repository(name, revision)
        if found is None:
            return None
        if what == "tree":
            return self._send(200, json.dumps([_entry(*item) for item in found.files.items()]).encode())
        return self._send(200, json.dumps({"id": name, "sha": found.commit, "siblings": []}).encode())

    def _resolve(self, name: str, revision: str, path: str) -> None:
        found = self._repository(name, revision, wants_file=True)
        if found is None:
            return None
        headers = {"X-Repo-Commit": found.commit}
        body = found.files.get(path)
        if body is None:
            return self._send(404, b"", "EntryNotFound", headers)
        digest = hashlib.sha256(body).hexdigest()
        if len(body) < LARGE:
            return self._send(200, body, headers={**headers, "ETag": f'"{digest[:40]}"'})
        headers |= {"X-Linked-Etag": f'"{digest}"', "X-Linked-Size": str(len(body))}
        return self._send(302, b"", headers={**headers, "Location": f"{self.hub.blob_url}/blobs/{digest}"})

    def _blob(self, digest: str) -> None:
        if token := self.headers.get("Authorization"):
            self.hub.leaked_tokens.append(token)
        body = self.hub.blob(digest)
        if body is None or self.hub.blob_status:
            return self._send(self.hub.blob_status or 404, b"")
        wanted = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range") or "")
        if wanted is None or self.hub.ignores_ranges:
            return self._send(200, body, cut=True)
        start, stop = int(wanted[1]), min(int(wanted[2] or len(body)) + 1, len(body))
        headers = {"Content-Range": f"bytes {start}-{stop - 1}/{len(body)}"}
        return self._send(206, body[start:stop], headers=headers, cut=True)

    def _send(
        self,
        status: int,
        body: bytes,
        code: str = "",
        headers: dict[str, str] | None = None,
        *,
        message: str = "",
        cut: bool = False,
    ) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **(headers or {})}.items():
            self.send_header(name, value)
        if code:
            self.send_header("X-Error-Code", code)
        if message:
            self.send_header("X-Error-Message", message)
        self.end_headers()
        if self.command == "HEAD":
            return
        if cut and self.hub.cuts:
            self.wfile.write(body[: self.hub.cuts.pop(0)])
            self.close_connection = True
        else:
            self.wfile.write(body)


def _entry(path: str, body: bytes) -> dict[str, object]:
    entry: dict[str, object] = {
        "type": "file",
        "path": path,
        "size": len(body),
        "oid": hashlib.sha1(body).hexdigest(),
    }
    if len(body) >= LARGE:
        digest = hashlib.sha256(body).hexdigest()
        entry["lfs"] = {"oid": digest, "size": len(body), "pointerSize": 130}
    return entry
