"""Embeddings of the texts of a file, or of standard input, in bounded memory: to a file, or as JSON lines."""

from __future__ import annotations

import contextlib
import functools
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from bertkit.console import Display
from bertkit.data.tables.hub_tables import table_path
from bertkit.data.tables.opening import open_table
from bertkit.data.tables.table import BY_THE_FILE, DataTable
from bertkit.data.tasks.own.base import OwnData
from bertkit.data.tasks.own.columns import TextColumns, choose_text, no_text, texts_of
from bertkit.errors import UserError
from bertkit.files.packed import open_text, read_line, unpacked_suffix
from bertkit.files.streams import put_json
from bertkit.recipes.recipe import Recipe
from bertkit.training.embedding_files import text_line, token_line, write_texts, write_tokens
from bertkit.training.encoder import Encoder, EncoderSetup, Pooling
from bertkit.training.recipe_parts import own_data

STDIN = "-"
LONGEST_LINE = 1 << 24  # bytes


@dataclass(frozen=True)
class TextSource:
    """Where texts come from; `texts` reads them from the beginning."""

    name: str
    texts: Callable[[], Iterator[str]]
    count: int | None  # None: standard input, which is read once
    path: Path | None = None
    notes: tuple[str, ...] = ()  # what was guessed, what is left out


@dataclass(frozen=True)
class EmbeddingWay:
    """What of the hidden states is wanted."""

    pooling: Pooling | Literal["tokens"]
    normalise: bool

    @property
    def tokens(self) -> bool:
        return self.pooling == "tokens"


@dataclass(frozen=True)
class EmbeddedFile:
    """What was written."""

    path: Path
    texts: int
    width: int  # values of an embedding
    full: int  # texts that fill the maximum sequence length


# ---- texts ----


def open_source(source: str, recipe: Recipe) -> TextSource:
    """The texts of a file, every one of them looked at and counted; or standard input, a text a line.

    Raises UserError for a file that is none, and for the first empty text.
    """
    own = own_data(recipe)
    if source == STDIN:
        if own.text:
            raise UserError("standard input has no columns: it is a text a line", "drop --text, or name a file")
        return TextSource("standard input", lambda: _lines(sys.stdin, "standard input"), None)
    path = table_path(source)
    if unpacked_suffix(path) == ".txt" and not own.text and own.options == BY_THE_FILE:
        return _counted(TextSource(str(path), lambda: _lines_of(path), 0, path))
    table = open_table(path, own.options)
    chosen = choose_text(table, own.text)
    notes = (f"{path}: {table.form}", *table.guesses, *chosen.guesses)
    rows = functools.partial(_of_table, table, chosen.columns, own)
    return _counted(TextSource(str(path), rows, 0, path, notes))


def _counted(source: TextSource) -> TextSource:
    """Read once before anything is computed, so that a fault in the last row costs no work."""
    count = sum(1 for _ in source.texts())
    if not count:
        raise UserError(f"{source.name}: holds no texts", "name a file with texts")
    return TextSource(source.name, source.texts, count, source.path, source.notes)


def _of_table(table: DataTable, columns: TextColumns, own: OwnData) -> Iterator[str]:
    for row in table.rows():
        texts = texts_of(row, columns)
        if texts is not None:
            yield texts[0]
        elif not own.skip_empty:
            raise no_text(row, columns)


def _lines_of(path: Path) -> Iterator[str]:
    """A text a line, in UTF-8."""
    with open_text(path) as file:
        yield from _lines(_decoded(iter(lambda: read_line(file, path, LONGEST_LINE), b""), path), str(path))


def _decoded(lines: Iterable[bytes], path: Path) -> Iterator[str]:
    for number, line in enumerate(lines, 1):
        try:
            yield line.decode("utf-8-sig" if number == 1 else "utf-8")
        except UnicodeDecodeError as error:
            raise UserError(f"{path}:{number}: is not UTF-8: {error.reason}", "save the file as UTF-8") from None


def _lines(lines: Iterable[str], place: str) -> Iterator[str]:
    number = 0
    try:
        for number, line in enumerate(lines, 1):
            text = line.rstrip("\r\n")
            if not text.strip():
                raise UserError(f"{place}, line {number}: is empty, but each line is a text", "remove the line")
            yield text
    except UnicodeDecodeError as error:
        raise UserError(f"{place} is not UTF-8 after line {number}: {error.reason}", "send UTF-8") from None


# ---- embeddings ----


def plan(setup: EncoderSetup, source: TextSource, way: EmbeddingWay, display: Display) -> None:
    """Say what would be computed, everything read and checked."""
    target = setup.target
    display.say(f"backend: {target.backend.name} ({target.choice.reason})")
    display.say(f"precision: {target.precision} ({target.reason})")
    layers = ", ".join(map(str, setup.layers))
    display.say(f"model: {setup.source.folder}, layers {layers} of {setup.source.config.num_hidden_layers}")
    normalised = ", normalised" if way.normalise else ""
    display.say(f"embeddings: {way.pooling} pooling, {setup.head.outputs} values each{normalised}")
    display.say(f"input: {source.name}" + (f", {source.count:,} texts" if source.count is not None else ""))


def embed_to_file(
    encoder: Encoder, source: TextSource, way: EmbeddingWay, path: Path, display: Display
) -> EmbeddedFile:
    """Write the embeddings to `path`, whole or not at all."""
    with _progress(source, display) as progress:
        if way.tokens:
            texts = encoder.token_parts(source.texts(), way.normalise, progress)
            count = write_tokens(path, texts, encoder.layers, encoder.width)
        else:
            parts = encoder.embed_parts(source.texts(), _pooling(way), way.normalise, progress)
            count = write_texts(path, parts, encoder.width)
    return EmbeddedFile(path, count, encoder.width, encoder.full)


def embed_to_stdout(encoder: Encoder, source: TextSource, way: EmbeddingWay, display: Display) -> None:
    """Print a line of JSON for each text, as they come."""
    quiet = display if not sys.stdout.isatty() else Display(quiet=True)  # a bar would stand among the lines
    with _progress(source, quiet) as progress:
        if way.tokens:
            for number, text in enumerate(encoder.token_parts(source.texts(), way.normalise, progress)):
                put_json(token_line(number, text, encoder.layers), flush=source.count is None)
            return
        for part in encoder.embed_parts(source.texts(), _pooling(way), way.normalise, progress):
            for one, row in zip(part.texts, part.embeddings, strict=True):
                put_json(text_line(one, row))
            sys.stdout.flush()


def _pooling(way: EmbeddingWay) -> Pooling:
    return "cls" if way.pooling == "cls" else "mean"


@contextlib.contextmanager
def _progress(source: TextSource, display: Display) -> Iterator[Callable[[int], object]]:
    """What to call with how many more texts are done."""
    if source.count is not None:
        with display.progress("embedding", source.count) as bar:
            yield bar.add
        return
    tell, done = display.follow(), [0]

    def add(more: int) -> None:
        done[0] += more
        tell("embedding", done[0], 0)

    yield add
