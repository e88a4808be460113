"""What a table's labels are: classes, several classes a row, or numbers; told by all of its rows."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from bertkit.data.tables.table import DataTable, Row, is_missing, number_of, shown
from bertkit.data.tasks.own.columns import FILL_IN, TextColumns
from bertkit.errors import UserError

RowKind = Literal["classification", "multilabel", "regression"]
ROW_KINDS: tuple[RowKind, ...] = ("classification", "multilabel", "regression")
TAGGING = "ner"  # the kind whose labels are those of tokens
CHOICE = "choice"  # the kind whose labels name one of several texts
KINDS = (*ROW_KINDS, CHOICE, TAGGING)
MOST_CLASSES = 10_000
FEW_NUMBERS = 20  # different whole numbers that are taken for classes
SEPARATORS = ("|", ";", ",")
TRUE, FALSE = ("1", "true", "yes"), ("0", "false", "no")  # of a column for each label


@dataclass(frozen=True)
class LabelFacts:
    """What the labels are, and how a cell is read."""

    kind: RowKind
    labels: tuple[str, ...]  # the classes in the order of the outputs; of regression the columns, where several
    separator: str = ""  # of a cell with several labels; "": a cell holds one, or is a list
    guesses: tuple[str, ...] = ()


@dataclass
class _Survey:
    """What the label cells hold."""

    rows: int = 0
    values: Counter[str] = field(default_factory=Counter)
    lists: bool = False
    texts: bool = False  # some cell is no number
    fractions: bool = False  # some number is not whole


def survey_labels(table: DataTable, columns: TextColumns, kind: str, separator: str, skip_empty: bool) -> LabelFacts:
    """Read every label. `kind`: as the user says, or "". Raises UserError where no task can be made of them."""
    if len(columns.labels) > 1:
        return _of_columns(table, columns.labels, kind, skip_empty)
    name = columns.labels[0]
    survey = _read(table, name, skip_empty)
    if kind == "multilabel" or (not kind and survey.lists):
        return _several(table, name, survey, separator)
    if survey.lists:
        raise UserError(f"{table.path}: column {name} holds lists of labels", "say -t multilabel")
    if kind == "regression" or (not kind and not survey.texts and name not in table.names):
        found = _of_numbers(table, name, survey, kind)
        if found:
            return found
    return _classes(table, name, survey, kind)


def _read(table: DataTable, name: str, skip_empty: bool) -> _Survey:
    survey = _Survey()
    for row in table.rows():
        cell = row.cells.get(name)
        if is_missing(cell):
            if skip_empty:
                continue
            raise missing_label(row, name)
        survey.rows += 1
        if isinstance(cell, list):
            survey.lists = True
            survey.values.update(label_text(each, table, name, row) for each in cell)
        else:
            text = label_text(cell, table, name, row)
            if len(survey.values) <= MOST_CLASSES:  # numbers may be as many as rows
                survey.values[text] += 1
        if len(survey.values) > MOST_CLASSES and (survey.lists or survey.texts):
            break
        _note_number(survey, cell)
    if not survey.rows:
        raise UserError(f"{table.path}: column {name} holds no labels", "name another with --label")
    return survey


def _note_number(survey: _Survey, cell: Any) -> None:
    value = number_of(cell)
    survey.texts |= not math.isfinite(value)
    survey.fractions |= math.isfinite(value) and value != int(value)


def missing_label(row: Row, name: str) -> UserError:
    return UserError(f"{row.place}: column {name} holds no label", FILL_IN)


def label_text(cell: Any, table: DataTable, name: str, row: Row) -> str:
    """A class's name: numbers without a needless point, true and false in small letters.

    Raises UserError where the cell is neither a text nor a number.
    """
    names = table.names.get(name)
    if names and isinstance(cell, int) and not isinstance(cell, bool) and 0 <= cell < len(names):
        return names[cell]
    if isinstance(cell, bool):
        return str(cell).lower()
    if isinstance(cell, float) and math.isfinite(cell) and cell == int(cell):
        return str(int(cell))
    if isinstance(cell, str | int | float):
        return str(cell).strip()
    raise UserError(f"{row.place}: the label in column {name} is {shown(cell)}", "a label is a text or a number")


def _classes(table: DataTable, name: str, survey: _Survey, kind: str) -> LabelFacts:
    found = [*survey.values]
    _check_many(table, name, survey)
    if len(found) == 1:
        raise UserError(
            f"{table.path}: column {name} holds one label only, {found[0]!r}", "there is nothing to tell apart"
        )
    guesses = []
    if not survey.texts and not kind and name not in table.names:
        guesses.append(f"{name}'s {len(found)} whole numbers are taken for classes; -t regression makes them a target")
    return LabelFacts("classification", ordered(found, table.names.get(name)), "", tuple(guesses))


def ordered(labels: Iterable[str], names: Sequence[str] | None = None) -> tuple[str, ...]:
    """Classes in the order of the outputs: as the data set numbers them, else numbers by size, else by the alphabet."""
    found = sorted(set(labels))
    if names and set(found) <= set(names):
        return tuple(names)
    try:
        return tuple(sorted(found, key=float))
    except (ValueError, OverflowError):
        return tuple(found)


def _check_many(table: DataTable, name: str, survey: _Survey) -> None:
    count = len(survey.values)
    _check_count(table, name, count)
    if survey.texts and survey.rows > 2 * FEW_NUMBERS and count > survey.rows / 2:
        raise UserError(
            f"{table.path}: column {name} holds {count:,} labels in {survey.rows:,} rows, nearly one for each",
            "name the column of the label with --label",
        )


def _check_count(table: DataTable, name: str, count: int) -> None:
    if count > MOST_CLASSES:
        raise UserError(f"{table.path}: column {name} holds over {MOST_CLASSES:,} labels", "name another with --label")


def _of_numbers(table: DataTable, name: str, survey: _Survey, kind: str) -> LabelFacts | None:
    """A target; None where a few whole numbers are classes."""
    if survey.texts:
        text = next(text for text in survey.values if not math.isfinite(number_of(text)))
        raise UserError(f"{table.path}: column {name} holds {text!r}, which is no number", "say -t classification")
    if not kind and not survey.fractions and len(survey.values) <= FEW_NUMBERS:
        return None
    said = f"{name}'s numbers are taken for a target; -t classification makes classes of them"
    return LabelFacts("regression", (), "", () if kind else (said,))


def _several(table: DataTable, name: str, survey: _Survey, separator: str) -> LabelFacts:
    guesses: tuple[str, ...] = ()
    if not survey.lists and not separator:
        separator = next((mark for mark in SEPARATORS if any(mark in value for value in survey.values)), "")
        if separator:
            guesses = (f"cells of {name} are cut at {separator!r}; say another with --set table.separator=…",)
    found = {label for value in survey.values for label in parted(value, separator)}
    if len(found) < 2:
        raise UserError(f"{table.path}: column {name} holds {len(found)} label only", "there is nothing to tell apart")
    _check_count(table, name, len(found))
    return LabelFacts("multilabel", ordered(found, table.names.get(name)), separator, guesses)


def parted(value: str, separator: str) -> list[str]:
    """The labels of one cell."""
    return [label for part in (value.split(separator) if separator else [value]) if (label := part.strip())]


def _of_columns(table: DataTable, names: Sequence[str], kind: str, skip_empty: bool) -> LabelFacts:
    """A column for each label with 0 or 1, or for each target with a number."""
    yes_or_no = True
    for row in table.rows():
        empty = [name for name in names if is_missing(row.cells.get(name))]
        if empty and not skip_empty:
            raise missing_label(row, empty[0])
        for name in names if not empty else ():
            cell = row.cells.get(name)
            yes_or_no &= one_or_zero(cell) is not None
            if not math.isfinite(number_of(cell)) and one_or_zero(cell) is None:
                raise UserError(
                    f"{row.place}: column {name} holds {shown(cell)}, neither 0 or 1 nor a number",
                    "several label columns hold 0 or 1 each, or a number each",
                )
    if kind == "classification":
        raise UserError(f"{len(names)} label columns make no single class", "say -t multilabel or -t regression")
    if kind == "multilabel" and not yes_or_no:
        raise UserError(f"{table.path}: {', '.join(names)} hold other numbers than 0 and 1", "say -t regression")
    return LabelFacts("multilabel" if yes_or_no and kind != "regression" else "regression", tuple(names))


def one_or_zero(cell: Any) -> int | None:
    """Whether a label applies; None where the cell does not say."""
    text = label_number(cell)
    return 1 if text in TRUE else 0 if text in FALSE else None


def label_number(cell: Any) -> str:
    if isinstance(cell, float) and math.isfinite(cell) and cell == int(cell):
        return str(int(cell))
    return str(cell).strip().lower()
