"""Which columns hold the texts and the labels: as the user says, else told by names and content, and said."""

from __future__ import annotations

import itertools
import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from bertkit.data.tables.table import DataTable, Row, is_missing, number_of
from bertkit.data.tasks.own.templates import columns_of, text_cell, text_column
from bertkit.errors import UserError

LOOKED_AT = 1000  # rows
TEXTS = ("text", "sentence", "review", "content", "body", "comment", "message", "description", "question", "title")
PAIRS = (
    ("sentence1", "sentence2"), ("premise", "hypothesis"), ("question1", "question2"), ("text1", "text2"),
    ("text_a", "text_b"), ("text", "text_pair"), ("query", "passage"),
)  # fmt: skip
LABELS = (
    "label", "labels", "class", "category", "target", "sentiment", "stars", "rating", "score", "intent", "topic", "y",
)  # fmt: skip
FEW = 20  # different values that a column of labels may have where nothing else tells it
FILL_IN = "fill it in or remove the row; --set table.empty=skip leaves such rows out"
LONG = 3  # so many times as long as the others is a column of texts


@dataclass(frozen=True)
class TextColumns:
    """Where a table keeps what."""

    text: str  # a column, or a template of several
    pair: str | None
    labels: tuple[str, ...]  # one; or several with a target each

    @property
    def texts(self) -> str:
        """The columns of texts, in words."""
        return f"{self.text} and {self.pair}" if self.pair else self.text

    def described(self) -> str:
        texts = f"text in column {self.texts}"
        return f"{texts}, label in {', '.join(self.labels)}" if self.labels else texts


@dataclass(frozen=True)
class Chosen:
    """The columns, and what was guessed about them."""

    columns: TextColumns
    guesses: tuple[str, ...]


def choose_columns(table: DataTable, text: str, pair: str, label: str) -> Chosen:
    """The columns of `table`; what is empty is told by the file. `label`: several are comma-separated.

    Raises UserError for a column that is not there, and where the file does not tell.
    """
    rows = list(itertools.islice(table.rows(), LOOKED_AT))
    if not rows:
        raise UserError(f"{table.path}: holds no rows", "name a file with rows")
    labels = tuple(table.column(name.strip(), "label") for name in label.split(",")) if label else ()
    guesses = []
    if not labels:
        labels = (_label_column(table, rows, {*columns_of(text), *columns_of(pair)}),)
        guesses.append(f"the label is taken from column {labels[0]}; name another with --label")
    first, second = (text_column(table, name, "text") if name else "" for name in (text, pair))
    if not first:
        first, second = _text_columns(table, rows, labels, second)
        said = f"{first} and {second}" if second else first
        guesses.append(f"the text is taken from column {said}; name another with --text")
    if {*columns_of(first), *columns_of(second)} & {*labels} or first == second:
        raise UserError(f"{table.path}: one column is named for two things: {first}", "name the text and the label")
    columns = TextColumns(text=first, pair=second or None, labels=labels)
    for row in rows:
        texts_of(row, columns)  # refuses lists before anything else is read
    return Chosen(columns, tuple(guesses))


def choose_text(table: DataTable, text: str) -> Chosen:
    """The column of `table` with the texts, of which a row has one; "": told by the file.

    Raises UserError for a column that is not there, and where the file does not tell.
    """
    chosen = choose_texts(table, text, "")
    if chosen.columns.pair:
        raise UserError(f"{table.path}: has two columns of texts, {chosen.columns.texts}", "name one with --text")
    return chosen


def choose_texts(table: DataTable, text: str, pair: str) -> Chosen:
    """The column of `table` with the texts, or the two; "": told by the file, where it may have labels or none.

    Raises UserError as `choose_text`.
    """
    first, second = (text_column(table, name, "text") if name else "" for name in (text, pair))
    if first:
        return Chosen(TextColumns(first, second or None, ()), ())
    rows = list(itertools.islice(table.rows(), LOOKED_AT))
    labels = tuple(name for name in table.columns if name.strip().lower() in LABELS)
    one = len(table.columns) == 1
    first, second = (table.columns[0], second) if one else _text_columns(table, rows, labels, second)
    columns = TextColumns(first, second or None, ())
    return Chosen(columns, (f"the text is taken from column {columns.texts}; name another with --text",))


def columns_in(table: DataTable, wanted: TextColumns, labelled: bool | None = None) -> TextColumns:
    """The same columns in another table. `labelled`: None: with labels where the table has them all.

    Raises UserError for one that is not there.
    """
    there = all(name in table.columns for name in wanted.labels) if labelled is None else labelled
    return TextColumns(
        text=text_column(table, wanted.text, "text"),
        pair=text_column(table, wanted.pair, "second text") if wanted.pair else None,
        labels=tuple(table.column(name, "label") for name in wanted.labels) if there else (),
    )


def texts_of(row: Row, columns: TextColumns) -> tuple[str, ...] | None:
    """The row's text, or two; None where one is empty. Raises UserError where one is a list or an object."""
    found = []
    for name in (columns.text, columns.pair):
        if name is None:
            continue
        cell = text_cell(row.cells, name)
        if isinstance(cell, list | dict):
            raise UserError(
                f"{row.place}: column {name} holds a list or an object, not a text", "name another with --text"
            )
        if is_missing(cell):
            return None
        found.append(str(cell))
    return tuple(found)


def no_text(row: Row, columns: TextColumns, cure: str = FILL_IN) -> UserError:
    """Of a row of which `texts_of` gives None."""
    name = columns.text if is_missing(text_cell(row.cells, columns.text)) else columns.pair
    return UserError(f"{row.place}: column {name} holds no text", cure)


def _label_column(table: DataTable, rows: Sequence[Row], taken: set[str]) -> str:
    by_name = {column.strip().lower(): column for column in table.columns if column not in taken}
    known = next((by_name[name] for name in LABELS if name in by_name), None)
    if known is not None:
        return known
    few = [column for column in table.columns if column not in taken and _few_values(rows, column)]
    if len(few) == 1:
        return few[0]
    raise UserError(
        f"{table.path}: which column holds the label? Its columns: {', '.join(table.columns[:FEW])}",
        "name it with --label",
    )


def _few_values(rows: Sequence[Row], column: str) -> bool:
    values = {str(row.cells.get(column)) for row in rows}
    return 2 <= len(values) <= min(FEW, max(2, len(rows) // 3))


def _text_columns(table: DataTable, rows: Sequence[Row], labels: Sequence[str], pair: str) -> tuple[str, str]:
    by_name = {column.strip().lower(): column for column in table.columns if column not in labels}
    if not pair:
        for one, other in PAIRS:
            if one in by_name and other in by_name:
                return by_name[one], by_name[other]
    known = [by_name[name] for name in TEXTS if name in by_name and by_name[name] != pair]
    if known:
        return known[0], pair
    lengths = {column: _mean_length(rows, column) for column in by_name.values() if column != pair}
    order = sorted(lengths, key=lambda column: -lengths[column])
    if order and lengths[order[0]] and (len(order) == 1 or lengths[order[0]] >= LONG * lengths[order[1]]):
        return order[0], pair
    raise UserError(
        f"{table.path}: which column holds the text? Its columns: {', '.join(table.columns[:FEW])}",
        "name it with --text",
    )


def _mean_length(rows: Sequence[Row], column: str) -> float:
    """Characters of the column's texts, on average; 0 where it holds others."""
    found = [row.cells.get(column) for row in rows]
    cells = [cell for cell in found if isinstance(cell, str) and not is_missing(cell)]
    if not cells or any(not is_missing(cell) and not isinstance(cell, str) for cell in found):
        return 0.0
    if not any(math.isnan(number_of(cell)) for cell in cells):
        return 0.0
    return statistics.mean(len(cell) for cell in cells)
