"""Which text files go in, what they look like, and the pieces that the work is cut into.

The pieces depend on the files alone, never on the number of workers: so does all that is made from them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from bertkit.data.pretraining.prepare.corpus_files import form_of
from bertkit.data.pretraining.prepare.texts import BLOCK, InputFormat
from bertkit.errors import UserError
from bertkit.files import inputs
from bertkit.files.packed import PACKED, open_text, read_some

PIECE = 8 << 20  # bytes of text; small files go together, large ones are cut where a document begins
UNPACKED = 4  # text is about so many times as large as packed
LOOK = 1 << 16  # bytes of a file that its format is told by


@dataclass(frozen=True)
class CorpusFile:
    """One text file."""

    path: Path
    name: str  # as it was given, or within the folder that was
    bytes: int
    format: InputFormat

    @property
    def text_bytes(self) -> int:
        """About how much text it holds."""
        return self.bytes * (UNPACKED if self.path.suffix in PACKED else 1)


@dataclass(frozen=True)
class CorpusPart:
    """A file from one byte offset to another; -1: to its end."""

    source: int
    start: int
    stop: int


Piece = tuple[CorpusPart, ...]


def text_bytes(sources: Sequence[CorpusFile]) -> int:
    """About how much text they hold."""
    return sum(source.text_bytes for source in sources)


def part_bytes(part: CorpusPart, sources: Sequence[CorpusFile]) -> int:
    """About how much text it holds."""
    return part.stop - part.start if part.stop >= 0 else sources[part.source].text_bytes


def find_sources(places: Sequence[Path], format: InputFormat | None) -> tuple[CorpusFile, ...]:
    """The files, and those of the folders, sorted within each. Raises UserError where there are none, or one is empty
    of everything that could be text."""
    found = []
    for place in places:
        if not inputs.exists(place):
            raise UserError(f"{place}: there is no such file or folder", "name text files or folders that hold some")
        inside = sorted(path for path in place.rglob("*") if inputs.is_file(path)) if place.is_dir() else [place]
        for path in inside:
            name = path.relative_to(place).as_posix() if place.is_dir() else path.name
            if any(part.startswith(".") for part in Path(name).parts):
                continue
            if size := inputs.check_file(path):
                found.append(CorpusFile(path, name, size, format or detect(path)))
    if not found:
        raise UserError(f"{', '.join(map(str, places))}: no text in it", "name text files or folders that hold some")
    return tuple(found)


def detect(path: Path) -> InputFormat:
    """What a file's start looks like. Raises UserError where that is no text."""
    with open_text(path) as file:
        head = read_some(file, path, LOOK)
    return form_of(head, path, cut=len(head) == LOOK)


def plan(sources: Sequence[CorpusFile]) -> tuple[Piece, ...]:
    """The pieces, in the order of the sources."""
    pieces: list[Piece] = []
    open_parts: list[CorpusPart] = []
    size = 0
    for number, source in enumerate(sources):
        for part in _parts(number, source):
            open_parts.append(part)
            size += part_bytes(part, sources)
            if size >= PIECE:
                pieces.append(tuple(open_parts))
                open_parts, size = [], 0
    if open_parts and pieces and size < PIECE // 2:
        pieces[-1] += tuple(open_parts)  # the next sentences of few documents would come from too few others
    elif open_parts:
        pieces.append(tuple(open_parts))
    return tuple(pieces)


def _parts(number: int, source: CorpusFile) -> Iterator[CorpusPart]:
    if source.path.suffix in PACKED or source.format == "raw" or source.bytes < 2 * PIECE:
        yield CorpusPart(number, 0, -1)
        return
    start = 0
    while start < source.bytes:
        stop = _next_document(source, start + PIECE) if start + 2 * PIECE < source.bytes else source.bytes
        yield CorpusPart(number, start, stop)
        start = stop


def _next_document(source: CorpusFile, offset: int) -> int:
    """Where the first document behind `offset` begins; the file's size where there is none."""
    with source.path.open("rb") as file:
        file.seek(offset)
        ended = source.format != "sentences"
        place = offset + _skip_line(file)  # the one that was hit
        while line := file.readline(BLOCK):
            if source.format == "jsonl" or (source.format == "wiki" and line.startswith(b"<doc ")):
                return place
            if source.format == "sentences" and ended and line.strip():
                return place
            ended = ended or not line.strip()
            place += len(line)
    return source.bytes


def _skip_line(file: IO[bytes]) -> int:
    """Bytes of the rest of a line, of whatever length."""
    skipped = 0
    while line := file.readline(BLOCK):
        skipped += len(line)
        if line.endswith(b"\n"):
            break
    return skipped
