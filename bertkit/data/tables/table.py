"""What a table is, whatever its format: columns, and rows that know where they stand."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bertkit.errors import UserError, nearest

SHOWN = 60  # characters of a cell in a message
MISSING = ("", "nan", "NaN", "NaT", "<NA>")  # of texts: as pandas and others write a cell that holds nothing


@dataclass(frozen=True)
class TableOptions:
    """What the user says of a file; where it is left open, the file is looked at."""

    delimiter: str = ""  # one character, or "tab"; "": by the file
    header: bool | None = None
    encoding: str = ""  # as Python calls it; "": by the file
    conll: bool = False  # whether plain text is CoNLL's columns


BY_THE_FILE = TableOptions()


@dataclass(frozen=True)
class Row:
    """One row."""

    place: str  # the file, and the line on which the row begins, or its number where the format has no lines
    cells: Mapping[str, Any]  # by column; texts alone where the format has no other types


@dataclass(frozen=True)
class TableWriter:
    """How rows of a table's columns are written in its format, or the nearest that is written here."""

    form: str  # in words
    suffixes: tuple[str, ...]  # of files of it
    write: Callable[[Path, Iterable[Mapping[str, Any]]], object]


@dataclass(frozen=True)
class DataTable:
    """A file, looked at; `rows` reads it from its beginning."""

    path: Path
    form: str  # in words: "CSV, delimiter comma, with a header"
    columns: tuple[str, ...]
    rows: Callable[[], Iterator[Row]]
    guesses: tuple[str, ...] = ()  # what was told by the content and may be wrong, with how to say it oneself
    delimited: bool = False  # whether `TableOptions` has a say
    names: Mapping[str, tuple[str, ...]] = field(default_factory=dict)  # column -> names of the classes it numbers
    writer: TableWriter | None = None

    def column(self, name: str, what: str) -> str:
        """The column `name`. Raises UserError where there is none, naming the nearest; `what`: what it is to hold."""
        if name in self.columns:
            return name
        alike = [column for column in self.columns if column.strip().casefold() == name.strip().casefold()]
        if len(alike) == 1:
            return alike[0]
        has = ", ".join(column[:SHOWN] for column in self.columns[:20]) + (", …" if len(self.columns) > 20 else "")
        raise UserError(
            f"{self.path}: has no column {name!r} for the {what}; its columns: {has}", nearest(name, self.columns)
        )


def is_missing(cell: Any) -> bool:
    """Whether a cell holds nothing: null, not a number, or a text that stands for it."""
    if cell is None:
        return True
    if isinstance(cell, str):
        return cell.strip() in MISSING
    return isinstance(cell, float) and math.isnan(cell)


def number_of(cell: Any) -> float:
    """The number that a cell is or spells; not a number where it is none."""
    try:
        return math.nan if isinstance(cell, bool | list) else float(cell)
    except (TypeError, ValueError, OverflowError):  # the last of whole numbers without end
        return math.nan


def shown(cell: Any) -> str:
    """A cell in a message, in quotes and cut."""
    text = repr(cell)
    return text if len(text) <= SHOWN else text[: SHOWN - 1] + "…"
