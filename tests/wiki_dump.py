"""A small dump of a wiki by MediaWiki's export schema 0.11, and the server that its publisher would have."""

from __future__ import annotations

import bz2
import hashlib
from collections.abc import Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from xml.sax.saxutils import escape

NAMESPACES = {-2: "Media", -1: "Special", 0: "", 1: "Talk", 6: "File", 10: "Template", 14: "Category"}
EXPORT = "http://www.mediawiki.org/xml/export-0.11"
HEAD = """<mediawiki xmlns="{export}/" xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance" \
xsi:schemaLocation="{export}/ {export}.xsd" version="0.11" xml:lang="en">
  <siteinfo>
    <sitename>Wikipedia</sitename>
    <dbname>{wiki}</dbname>
    <base>https://{language}.wikipedia.org/wiki/Main_Page</base>
    <generator>MediaWiki 1.45.0-wmf.9</generator>
    <case>first-letter</case>
    <namespaces>
{namespaces}
    </namespaces>
  </siteinfo>
"""
TAIL = "</mediawiki>\n"


def head(language: str = "simple", names: dict[int, str] | None = None) -> str:
    spaces = "\n".join(
        f'      <namespace key="{key}" case="first-letter">{name}</namespace>'
        if name
        else f'      <namespace key="{key}" case="first-letter" />'
        for key, name in (NAMESPACES | (names or {})).items()
    )
    return HEAD.format(export=EXPORT, wiki=f"{language.replace('-', '_')}wiki", language=language, namespaces=spaces)


def page(number: int, title: str, text: str, namespace: int = 0, redirect: str = "", model: str = "wikitext") -> str:
    gone = f'    <redirect title="{escape(redirect)}" />\n' if redirect else ""
    return f"""  <page>
    <title>{escape(title)}</title>
    <ns>{namespace}</ns>
    <id>{number}</id>
{gone}    <revision>
      <id>{number + 1000}</id>
      <parentid>{number + 900}</parentid>
      <timestamp>2026-09-01T00:00:00Z</timestamp>
      <contributor>
        <username>A</username>
        <id>5</id>
      </contributor>
      <comment>a &lt;page&gt; is not one</comment>
      <origin>{number + 1000}</origin>
      <model>{model}</model>
      <format>text/x-wiki</format>
      <text bytes="{len(text.encode())}" sha1="q" xml:space="preserve">{escape(text)}</text>
      <sha1>q</sha1>
    </revision>
  </page>
"""


def multistream(pages: Sequence[str], per_stream: int = 2, language: str = "simple") -> bytes:
    """As the publisher packs it: the head, so many pages at a time, and the tail, each a bzip2 stream."""
    groups = ["".join(pages[start : start + per_stream]) for start in range(0, len(pages), per_stream)]
    return b"".join(bz2.compress(part.encode()) for part in (head(language), *groups, TAIL))


def cut_anywhere(pages: Sequence[str], size: int) -> bytes:
    """As pbzip2 packs it: streams that end in the middle of pages."""
    whole = (head() + "".join(pages) + TAIL).encode()
    return b"".join(bz2.compress(whole[start : start + size]) for start in range(0, len(whole), size))


class DumpServer(ThreadingHTTPServer):
    """A mirror with the dumps of one wiki, by the paths that BERTKIT_MIRROR gives."""

    def __init__(self, packed: bytes, language: str = "simple", date: str = "20260901") -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        wiki = f"{language.replace('-', '_')}wiki"
        self.name = f"{wiki}-{date}-pages-articles-multistream.xml.bz2"
        self.asked: list[tuple[str, str | None]] = []  # name, range
        self.cuts: list[int] = []  # bytes after which answers that are a dump break off
        others = f"{'0' * 40}  {wiki}-{date}-pages-articles-multistream1.xml-p1p99.bz2\n"
        sums = f"{others}{hashlib.sha1(packed, usedforsecurity=False).hexdigest()}  {self.name}\n".encode()
        host = "/dumps.wikimedia.org"
        self.files = {
            f"{host}/{wiki}/{date}/{self.name}": packed,
            f"{host}/{wiki}/{date}/{wiki}-{date}-sha1sums.txt": sums,
            f"{host}/{wiki}/latest/{wiki}-latest-sha1sums.txt": sums,
        }

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class Handler(BaseHTTPRequestHandler):
    server: DumpServer

    def do_GET(self) -> None:
        asked = self.headers["Range"]
        self.server.asked.append((self.path.rpartition("/")[2], asked))
        content = self.server.files.get(self.path)
        if content is None:
            self.send_error(404)
            return
        start = int(asked.removeprefix("bytes=").rstrip("-")) if asked else 0
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        self.send_header("Content-Length", str(len(content) - start))
        self.end_headers()
        rest = content[start:]
        cut = self.server.cuts.pop(0) if self.server.cuts and self.path.endswith(".bz2") else len(rest)
        self.wfile.write(rest[:cut])

    def log_message(self, format: str, *args: object) -> None:
        pass
