"""Documents out of text files, streamed: whatever a file's size, little of it is in memory.

Formats: raw (a file is a document, blank lines part paragraphs), wiki (WikiExtractor's <doc> elements; the first line
of each is its title and left out), jsonl (a JSON object with "text" a line), sentences (one a line, blank lines between
documents). Packed as .gz, .bz2, .xz or .zst, or not.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from bertkit.data.pretraining.prepare.sentences import split_sentences
from bertkit.errors import UserError
from bertkit.files.packed import open_text, read_some

InputFormat = Literal["raw", "wiki", "jsonl", "sentences"]
BLOCK = 1 << 20  # bytes read at a time; a longer line of text goes on as another one
LONGEST_JSON = 64 << 20  # bytes of a line of JSON, which cannot be cut
LONGEST_DOCUMENT = 4 << 20  # characters; what is longer goes on as another document
DIVIDED_LINES = f"lines over {BLOCK >> 20} MB divided (line breaks would keep their sentences whole)"
DIVIDED_DOCUMENTS = f"documents over {LONGEST_DOCUMENT >> 20} million characters divided"
HALF_PAIR = re.compile("[\ud800-\udfff]")
SHOWN = "make it UTF-8 text, or leave it out"


@dataclass
class Notes:
    """What was divided or left out on the way."""

    counts: dict[str, int] = field(default_factory=dict)
    first: dict[str, str] = field(default_factory=dict)  # the file it was first met in
    reading: str = ""  # the file that is read now

    def add(self, what: str) -> None:
        self.counts[what] = self.counts.get(what, 0) + 1
        self.first.setdefault(what, self.reading)


def documents(path: Path, format: InputFormat, start: int, stop: int, notes: Notes) -> Iterator[list[str]]:
    """The sentences of each document between two byte offsets of a file (`stop` -1: to its end).

    Raises UserError naming file and offset or line where the text is not UTF-8 or not of this format.
    """
    notes.reading = path.name
    lines = _lines(path, start, stop, format == "jsonl", notes)
    parts: Iterator[Iterator[str]] = {"raw": _raw, "wiki": _wiki, "jsonl": _jsonl, "sentences": _by_line}[format](
        path, lines
    )
    for part in parts:
        sentences: list[str] = []
        size = 0
        for sentence in part:
            sentences.append(sentence)
            size += len(sentence)
            if size > LONGEST_DOCUMENT:
                notes.add(DIVIDED_DOCUMENTS)
                yield sentences
                sentences, size = [], 0
        if sentences:
            yield sentences
        elif not size:
            notes.add("documents without text")


def _raw(path: Path, lines: Iterator[str]) -> Iterator[Iterator[str]]:
    def sentences() -> Iterator[str]:
        paragraph: list[str] = []
        size = 0
        for line in lines:
            if line.strip() and size < BLOCK:
                paragraph.append(line)
                size += len(line)
            else:
                yield from split_sentences(" ".join([*paragraph, line]))
                paragraph, size = [], 0
        yield from split_sentences(" ".join(paragraph))

    yield sentences()


def _wiki(path: Path, lines: Iterator[str]) -> Iterator[Iterator[str]]:
    for line in lines:
        if line.startswith("<doc "):
            yield _article(path, lines, line)
        elif line.strip():
            raise UserError(f"{path}: {line.strip()[:40]!r} stands outside <doc …>", "name the format: --input-format")


def _article(path: Path, lines: Iterator[str], head: str) -> Iterator[str]:
    next(lines, None)  # its title
    for line in lines:
        if line.startswith("</doc>"):
            return
        yield from split_sentences(line)
    raise UserError(f"{path}: ends within {head.strip()[:80]}", "copy or make the file again")


def _jsonl(path: Path, lines: Iterator[str]) -> Iterator[Iterator[str]]:
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        text = _text_of(line, f"{path}: line {number} of its part")
        yield (sentence for paragraph in text.split("\n") for sentence in split_sentences(paragraph))


def _text_of(line: str, where: str) -> str:
    cure = "mend it, or name the format: --input-format"
    try:
        found = json.loads(line)
    except (ValueError, RecursionError):
        found = None
    text = found.get("text") if isinstance(found, dict) else None
    if isinstance(text, str):
        if HALF_PAIR.search(text):
            raise UserError(f"{where} holds half of a surrogate pair: {line.strip()[:40]!r}", "correct that character")
        return text
    has = f"; it has {', '.join(map(repr, list(found)[:8])) or 'no keys'}" if isinstance(found, dict) else ""
    raise UserError(f'{where} is no JSON object with a string "text"{has}: {line.strip()[:40]!r}', cure)


def _by_line(path: Path, lines: Iterator[str]) -> Iterator[Iterator[str]]:
    for line in lines:
        if line.strip():
            yield _until_blank(line, lines)


def _until_blank(first: str, lines: Iterator[str]) -> Iterator[str]:
    yield " ".join(first.split())
    for line in lines:
        if not (words := line.split()):
            return
        yield " ".join(words)


def _lines(path: Path, start: int, stop: int, whole: bool, notes: Notes) -> Iterator[str]:
    """Lines without their ends. One over BLOCK bytes goes on as another, cut at a space; where `whole` it is refused
    over LONGEST_JSON."""
    rest, place = b"", start
    with open_text(path) as file:
        if start:
            file.seek(start)
        while True:
            block = read_some(file, path, BLOCK if stop < 0 else min(BLOCK, stop - place - len(rest)))
            buffer = rest + block
            cut = buffer.rfind(b"\n") + 1 if block else len(buffer)
            if not cut and len(buffer) > (LONGEST_JSON if whole else BLOCK):
                if whole:
                    raise UserError(
                        f"{path}: the line at byte {place:,} has over {LONGEST_JSON >> 20} MB",
                        "a document of JSON must be shorter; give its text as a file",
                    )
                notes.add(DIVIDED_LINES)
                cut = _cut(buffer)
                yield _decoded(buffer[:cut], path, place)
            elif cut:
                yield from _decoded(buffer[:cut], path, place).removesuffix("\n").split("\n")
            rest, place = buffer[cut:], place + cut
            if not block:
                return


def _cut(buffer: bytes) -> int:
    """Behind the last space, or where there is none before the last character's first byte."""
    if space := buffer.rfind(b" ") + 1:
        return space
    cut = len(buffer) - 1
    while cut > len(buffer) - 4 and buffer[cut] & 0xC0 == 0x80:
        cut -= 1
    return cut


def _decoded(data: bytes, path: Path, place: int) -> str:
    if (nul := data.find(b"\0")) >= 0:
        raise UserError(f"{path}: is not text: a zero byte at {place + nul:,}", SHOWN)
    try:
        return data.decode("utf-8").removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: is not UTF-8 at byte {place + error.start:,}", SHOWN) from None
