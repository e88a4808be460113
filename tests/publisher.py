"""A publisher's server in this process that can be told to misbehave; no network is used."""

from __future__ import annotations

import hashlib
import stat
import zipfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

CONTENT = bytes(range(256)) * 4096  # 1 MiB: several chunks
SHA256 = hashlib.sha256(CONTENT).hexdigest()
MD5 = hashlib.md5(CONTENT, usedforsecurity=False).hexdigest()


class Publisher(ThreadingHTTPServer):
    """Serves CONTENT at /file. `cuts` are the sizes after which the next answers break off."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.ranges = True
        self.sizes = True
        self.cuts: list[int] = []
        self.redirect = ""
        self.asked: list[str | None] = []  # the Range of each request

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/file"


class Handler(BaseHTTPRequestHandler):
    server: Publisher

    def do_GET(self) -> None:
        asked = self.headers["Range"]
        self.server.asked.append(asked)
        if self.server.redirect:
            self.send_response(302)
            self.send_header("Location", self.server.redirect)
            self.end_headers()
        elif self.path != "/file":
            self.send_error(404)
        else:
            self.serve(int(asked.removeprefix("bytes=").rstrip("-")) if asked and self.server.ranges else 0)

    def serve(self, start: int) -> None:
        if start >= len(CONTENT):
            self.send_response(416)
            self.send_header("Content-Range", f"bytes */{len(CONTENT)}")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(CONTENT) - 1}/{len(CONTENT)}")
        if self.server.sizes:
            self.send_header("Content-Length", str(len(CONTENT) - start))
        self.end_headers()
        rest = CONTENT[start:]
        self.wfile.write(rest[: self.server.cuts.pop(0)] if self.server.cuts else rest)

    def log_message(self, format: str, *args: object) -> None:
        pass


class Seen(list[tuple[int, int | None]]):
    """Remembers what it was told of the progress."""

    def __call__(self, done: int, total: int | None) -> None:
        self.append((done, total))


def quiet(done: int, total: int | None) -> None:
    pass


def make_zip(path: Path, members: dict[str, bytes], links: dict[str, str] | None = None) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
        for name, to in (links or {}).items():
            member = zipfile.ZipInfo(name)
            member.create_system = 3  # Unix
            member.external_attr = (stat.S_IFLNK | 0o777) << 16
            archive.writestr(member, to)
    return path
