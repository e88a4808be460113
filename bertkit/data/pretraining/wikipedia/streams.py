"""A bzip2 file of several streams, cut where a stream begins, and the pages whose beginning a piece holds.

A dump has a stream for each hundred pages, so pieces are read by several processes. The pages do not have to end where
a stream does: a page belongs to the piece in which it begins, and is read on beyond that.
"""

from __future__ import annotations

import bz2
import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from bertkit.errors import UserError

PIECE = 8 << 20  # packed bytes, of some 35 MB of XML
BLOCK = 1 << 20  # bytes read, or unpacked, at once
LONGEST_PAGE = 64 << 20  # bytes of XML; MediaWiki takes 2 MB of text
BEGIN = re.compile(rb"BZh[1-9]1AY&SY")  # a stream's head and its first block's: by chance once in 10^23 bytes
FIRST, LAST, END = b"<page>", b"</page>", b"</mediawiki>"  # in a dump's text each < is &lt;
CURE = "fetch the dump again"


@dataclass(frozen=True)
class Planned:
    """What a look at the whole file tells."""

    bytes: int
    sha256: str
    pieces: tuple[tuple[int, int], ...]  # packed bytes from one offset to another


def plan(path: Path, piece: int = PIECE) -> Planned:
    """The pieces, which depend on the file alone. Raises UserError for what is no bzip2 file."""
    digest, starts, place, rest = hashlib.sha256(), list[int](), 0, b""
    with path.open("rb") as file:
        while block := file.read(BLOCK):
            digest.update(block)
            seen = rest + block
            starts += [place - len(rest) + found.start() for found in BEGIN.finditer(seen)]
            place += len(block)
            rest = seen[-9:]  # one byte less than BEGIN: none is found twice
    if not starts or starts[0] != 0:
        raise UserError(f"{path}: is no bzip2 file", CURE)
    cuts = [0]
    for start in starts:
        if start - cuts[-1] >= piece:
            cuts.append(start)
    return Planned(place, digest.hexdigest(), tuple(zip(cuts, [*cuts[1:], place], strict=True)))


def unpacked(path: Path, start: int) -> Iterator[tuple[bytes, int]]:
    """(bytes, the offset at which their stream begins) from the stream at `start` to the end of the file.

    Raises UserError where the file is damaged or cut off.
    """
    with path.open("rb") as file:
        file.seek(start)
        packed, begin = file.read(BLOCK), start
        while packed:
            unpacker = bz2.BZ2Decompressor()
            while not unpacker.eof:
                yield _unpack(unpacker, packed, path, begin), begin
                packed = b"" if unpacker.eof or not unpacker.needs_input else _more(file, path, begin)
            packed = unpacker.unused_data
            begin = file.tell() - len(packed)
            packed = packed or file.read(BLOCK)


def _unpack(unpacker: bz2.BZ2Decompressor, packed: bytes, path: Path, begin: int) -> bytes:
    try:
        return unpacker.decompress(packed, BLOCK)
    except OSError:
        raise UserError(f"{path}: is damaged in the bzip2 stream at byte {begin:,}", CURE) from None


def _more(file: IO[bytes], path: Path, begin: int) -> bytes:
    packed = file.read(BLOCK)
    if not packed:
        raise UserError(f"{path}: is cut off in the bzip2 stream at byte {begin:,}", CURE)
    return packed


def pages(path: Path, start: int, stop: int) -> Iterator[bytes]:
    """The XML of each page that begins in the piece. Raises UserError as `unpacked`, and for a page without an end."""
    text = _Text(path, start, stop)
    while (begin := _begin(text)) is not None:
        text.drop(begin)
        end = _end(text)
        yield text.held[:end]
        text.drop(end)
    tail = text.tail.rstrip()
    if text.ended and stop == path.stat().st_size and not (tail.endswith(END) or END.endswith(tail)):
        raise UserError(f"{path}: ends before {END.decode()}", CURE)


def _begin(text: _Text) -> int | None:
    """Where the next page begins; None: in another piece, or there is none."""
    while True:
        begin = text.held.find(FIRST)
        if begin >= 0:
            return begin if text.limit is None or begin < text.limit else None
        if text.limit is not None and len(text.held) >= text.limit + len(FIRST) - 1:
            return None  # a tag that begins before the limit would be whole
        text.drop(max(0, len(text.held) - len(FIRST) + 1))
        if not text.more():
            return None


def _end(text: _Text) -> int:
    """Behind the end of the page at the beginning of what is held."""
    looked = 0
    while (end := text.held.find(LAST, looked)) < 0:
        looked = max(0, len(text.held) - len(LAST) + 1)
        if len(text.held) > LONGEST_PAGE:
            raise UserError(f"{text.path}: a page has over {LONGEST_PAGE >> 20} MB", "no wiki has such: " + CURE)
        if not text.more():
            raise UserError(f"{text.path}: ends within a page", CURE)
    return end + len(LAST)


class _Text:
    """The unpacked text from a piece's beginning on, little of which is in memory."""

    def __init__(self, path: Path, start: int, stop: int) -> None:
        self.path, self.stop = path, stop
        self.blocks = unpacked(path, start)
        self.held = self.tail = b""
        self.limit: int | None = None  # where in `held` the next piece begins; None: it was not met yet
        self.ended = False

    def drop(self, count: int) -> None:
        self.held = self.held[count:]
        self.limit = None if self.limit is None else max(0, self.limit - count)

    def more(self) -> bool:
        """Hold one more block; False: there is none."""
        block, begin = next(self.blocks, (b"", -1))
        if begin < 0:
            self.ended = True
            return False
        if begin >= self.stop and self.limit is None:
            self.limit = len(self.held)
        self.held += block
        self.tail = (self.tail + block)[-64:]
        return True


def head(path: Path) -> bytes:
    """The XML before the first page. Raises UserError where it is not that of a dump."""
    found = b""
    for block, _ in unpacked(path, 0):
        found += block
        end = found.find(b"</siteinfo>")
        if end >= 0 or len(found) > BLOCK:
            break
    begin = found.find(b"<mediawiki")
    if begin < 0 or end < 0:
        raise UserError(f"{path}: is no dump of a wiki: it does not begin with <mediawiki> and <siteinfo>", CURE)
    return found[begin : end + len(b"</siteinfo>")] + END
