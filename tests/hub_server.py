"""A model hub on localhost, as far as huggingface_hub needs one: one public, one gated, one private model."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

COMMIT = "0123456789abcdef0123456789abcdef01234567"
TOKEN = "hf_secret"


class Hub(ThreadingHTTPServer):
    """`folder` is served as acme/tiny, and as acme/private to who sends TOKEN. `requested` collects file names."""

    daemon_threads = True

    def __init__(self, folder: Path) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.folder = folder
        self.requested: list[str] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


@contextmanager
def serve_hub(folder: Path) -> Iterator[Hub]:
    hub = Hub(folder)
    thread = threading.Thread(target=hub.serve_forever, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        hub.shutdown()
        hub.server_close()


class _Handler(BaseHTTPRequestHandler):
    server: Hub

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        name = "/".join(path.removeprefix("/api/models/").strip("/").split("/")[:2])
        if name == "acme/gated":
            return self._refuse(403, "GatedRepo")
        allowed = name == "acme/private" and self.headers.get("authorization") == f"Bearer {TOKEN}"
        if name != "acme/tiny" and not allowed:
            return self._refuse(404, "RepoNotFound")
        rest = path.partition(name)[2].strip("/")
        if path.startswith("/api/"):
            return self._api(rest, name)
        return self._file(rest.split("/", 2)[2])

    def _api(self, rest: str, name: str) -> None:
        kind, _, revision = rest.partition("/")
        if revision.split("/")[0] not in ("", "main", "v1", COMMIT):
            return self._refuse(404, "RevisionNotFound")
        files = sorted(path for path in self.server.folder.rglob("*") if path.is_file())
        names = [str(path.relative_to(self.server.folder)) for path in files]
        if kind == "tree":
            tree = [
                {"type": "file", "path": name, "size": path.stat().st_size, "oid": _etag(path)}
                for name, path in zip(names, files, strict=True)
            ]
            return self._answer(json.dumps(tree).encode())
        info = {"id": name, "sha": COMMIT, "private": False, "siblings": [{"rfilename": name} for name in names]}
        return self._answer(json.dumps(info | {"tags": [], "downloads": 0, "likes": 0}).encode())

    def _file(self, name: str) -> None:
        path = self.server.folder / name
        if self.command == "GET":
            self.server.requested.append(name)
        if not path.is_file():
            return self._refuse(404, "EntryNotFound")
        return self._answer(path.read_bytes(), {"ETag": f'"{_etag(path)}"', "X-Repo-Commit": COMMIT})

    def _refuse(self, status: int, code: str) -> None:
        self._answer(b"{}", {"X-Error-Code": code, "X-Error-Message": code}, status)

    def _answer(self, body: bytes, headers: dict[str, str] | None = None, status: int = 200) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Content-Type", "application/json")
        for key, value in (headers or {}).items():
            self.send_header(key, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        """Nothing: the test's output is not the place."""


def _etag(path: Path) -> str:
    return hashlib.sha1(path.read_bytes()).hexdigest()
