"""Users' tables whose texts are varied: other columns are copied, and rows are written in the format they came in."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from bertkit.data.augmentation.texts import AugmentedFile, Group, VariedExample
from bertkit.data.tables.opening import open_table
from bertkit.data.tables.table import DataTable, Row, TableOptions
from bertkit.data.tasks.own.columns import choose_texts
from bertkit.data.tasks.own.templates import columns_of
from bertkit.errors import UserError
from bertkit.files.packed import unpacked_suffix

HELD_OUT = "train on the file with --dev FILE: rows that are held out of it would have copies among those trained on"


def open_own(path: Path, text: str, pair: str, options: TableOptions) -> AugmentedFile:
    """The table at `path`; `text`, `pair`: its columns of texts, or templates of several, each of which varies alone;
    "": told by the file.

    Raises UserError for a column that is not there, and for a format that is not written here.
    """
    table = open_table(path, options)
    writer = table.writer
    if writer is None:
        raise UserError(f"{path}: is {table.form}, which is not written here", "give CSV, JSON lines or Parquet")
    chosen = choose_texts(table, text, pair)
    named = [*columns_of(chosen.columns.text), *(columns_of(chosen.columns.pair) if chosen.columns.pair else ())]
    columns = tuple(dict.fromkeys(named))

    def write(place: Path, groups: Iterable[Group]) -> None:
        writer.write(place, _rows(groups, columns))

    notes = (f"{path}: {table.form}", *table.guesses, *chosen.guesses, f"rows are written as {writer.form}", HELD_OUT)
    return AugmentedFile(path, table.form, lambda: _examples(table, columns), write, columns, notes, writer.suffixes)


def check_suffix(output: Path, source: AugmentedFile) -> None:
    """Raises UserError where the name of the file to write says another format than it will have."""
    suffixes = source.suffixes
    if not suffixes or (output.suffix.lower() in suffixes and unpacked_suffix(output) == output.suffix.lower()):
        return
    cure = f"name it with {' or '.join(suffixes)}"
    raise UserError(f"{output}: its ending is not that of what is written, as {source.path} is {source.form}", cure)


def _examples(table: DataTable, columns: Sequence[str]) -> Iterator[VariedExample]:
    for row in table.rows():
        yield VariedExample(tuple(_text(row, name) for name in columns), row.cells)


def _text(row: Row, name: str) -> str:
    """The text to vary; "" where the cell holds none, as a number or nothing."""
    cell = row.cells.get(name)
    if isinstance(cell, list | dict):
        raise UserError(f"{row.place}: column {name} holds a list or an object, not a text", "name another with --text")
    return cell if isinstance(cell, str) else ""


def _rows(groups: Iterable[Group], columns: Sequence[str]) -> Iterator[Mapping[str, Any]]:
    for example, copies in groups:
        yield example.whole
        for copy in copies:
            varied = {
                name: new.text for name, old, new in zip(columns, example.texts, copy, strict=True) if new.text != old
            }
            yield {**example.whole, **varied}
