"""Multiple choice: which of several texts goes with another. Each choice is a sequence of its own, beside the text.

Source: Zellers et al. 2018, arXiv:1808.05326 (SWAG); Devlin et al. 2018, arXiv:1810.04805, section 4.4.
Legend: N examples, K choices of each.
"""

from __future__ import annotations

import csv
import functools
import io
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from bertkit.data.encoding import encode
from bertkit.data.features import Features
from bertkit.data.tables.opening import open_table
from bertkit.data.tables.table import DataTable, Row, is_missing, shown
from bertkit.data.tasks.metrics import accuracy, probabilities
from bertkit.data.tasks.own.base import OwnData, OwnFormat
from bertkit.data.tasks.own.columns import FILL_IN, TextColumns, columns_in, no_text, texts_of
from bertkit.data.tasks.own.held_out import mask
from bertkit.data.tasks.own.labels import label_number, missing_label
from bertkit.data.tasks.own.templates import text_column
from bertkit.data.tasks.task import Answered, AnswerRules, Part, Shape, Split, SplitName, Task, Tell
from bertkit.errors import UserError
from bertkit.files.disk import write_text
from bertkit.model.vocabulary import Vocabulary

Naming = Literal["from 0", "from 1", "letters", "texts"]  # how a label says which choice is right
CONTEXTS = ("context", "question", "text", "sentence", "premise", "sent1", "startphrase", "article", "ctx")
ANSWERS = ("label", "answer", "answerkey", "answer_key", "correct", "gold", "gold_label", "target")
LISTS = ("choices", "options", "endings", "answers", "candidates")
NUMBERED = re.compile(r"(?i)(choice|option|ending|answer|candidate|hypothesis|solution|sol)[ _.-]?([0-9]|[a-h])")
MOST = 64  # choices of an example
CHOICE_METRICS = ("accuracy",)


@dataclass(frozen=True, kw_only=True)
class ChoiceFormat(OwnFormat):
    """A row is an example: a text, K choices, and which is right. The pair's column begins each choice."""

    choices: tuple[str, ...]  # a column for each, or one with a list
    count: int  # K
    naming: Naming

    @property
    def stratified(self) -> bool:
        return True

    @property
    def answers_rows(self) -> bool:
        return True

    def texts_in(self, table: DataTable) -> Iterator[tuple[str, ...]]:
        here = self.of_table(table, labelled=False)
        for row in table.rows():
            texts = here.texts(row)
            if texts is None:
                raise here.empty(row)
            yield texts

    def features(
        self, task: Task, path: Path, split: SplitName, one: Split, vocabulary: Vocabulary, shape: Shape, tell: Tell
    ) -> Features:
        texts, right, skipped = self.examples_of(path, split, shape.rows)
        first = [each[0] for each in texts for _ in range(self.count)]
        second = [choice for each in texts for choice in each[1:]]
        labels = {"labels": np.array(right, np.int64)} if right else {}
        made = encode(
            vocabulary,
            first,
            second,
            {},
            shape.seq_length,
            lambda done: tell(done // self.count, len(texts)),
            {"skipped": np.array([skipped])},
        )
        return replace(made, labels=labels, each=self.count)

    def examples_of(self, path: Path, split: SplitName, rows: int = 0) -> tuple[list[tuple[str, ...]], list[int], int]:
        """(text and choices of each example, the right one's number where the file tells, rows left out)."""
        table = open_table(path, self.options)
        here = self.of_table(table, labelled=True if split != "test" else None)
        labelled, answer = bool(here.columns.labels), "".join(here.columns.labels)
        texts: list[tuple[str, ...]] = []
        right: list[int] = []
        skipped = 0
        for row in table.rows():
            found = here.texts(row)
            if found is None or (labelled and is_missing(row.cells.get(answer))):
                if not self.skip_empty:
                    raise here.empty(row) if found is None else missing_label(row, answer)
                skipped += 1
                continue
            texts.append(found)
            right += [right_choice(row, answer, _cells(row, here.choices), self.naming)] if labelled else []
        if not texts:
            raise UserError(f"{path}: holds no rows", "name a file with rows")
        kept = np.arange(len(texts))
        if self.held_out and split != "test":
            kept = np.flatnonzero(mask(self.held_out, right, None, path) == (split == "dev"))
        kept = kept[: rows or None]
        return [texts[number] for number in kept], [right[number] for number in kept] if labelled else [], skipped

    def of_table(self, table: DataTable, labelled: bool | None = None) -> ChoiceFormat:
        """The same columns in another table, as `columns_in` has them. Raises UserError for one that is not there."""
        choices = tuple(table.column(name, "choices") for name in self.choices)
        return replace(self, columns=columns_in(table, self.columns, labelled), choices=choices)

    def texts(self, row: Row) -> tuple[str, ...] | None:
        """(the text, K choices); None where one is empty. Raises UserError where there are fewer or more."""
        found, choices = texts_of(row, self.columns), _cells(row, self.choices)
        if len(choices) != self.count:
            raise UserError(
                f"{row.place}: has {len(choices)} choices, but the training file's first row has {self.count}",
                "give each row as many",
            )
        if found is None or any(is_missing(choice) for choice in choices):
            return None
        text, *begin = found
        return text, *(" ".join((*begin, str(choice))) for choice in choices)

    def empty(self, row: Row) -> UserError:
        """Of a row of which `texts` gives None."""
        if texts_of(row, self.columns) is None:
            return no_text(row, self.columns)
        return UserError(f"{row.place}: a choice holds no text", FILL_IN)

    def answer(self, task: Task, part: Part, outputs: Mapping[str, np.ndarray], rules: AnswerRules) -> Answered:
        logits, labels = outputs["logits"], part.features.labels.get("labels")
        return Answered(
            {} if labels is None else accuracy(logits, labels), functools.partial(self._write, task, logits)
        )

    def _write(self, task: Task, logits: np.ndarray, folder: Path, infix: str) -> Path:
        path = folder / f"{task.name}{infix}.csv"
        found = probabilities("classification", logits)
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(["row", "choice", "probability"])
        for number, row in enumerate(found):
            best = int(row.argmax())
            writer.writerow([number, name_of(best, self.naming), f"{row[best]:.6g}"])
        write_text(path, text.getvalue())
        return path


def name_of(number: int, naming: Naming) -> str:
    """The choice's name as the file's labels have it; its number from 0 where they are texts."""
    return {"from 1": str(number + 1), "letters": chr(ord("A") + number)}.get(naming, str(number))


def right_choice(row: Row, column: str, choices: Sequence[Any], naming: Naming) -> int:
    """The number, from 0, of the right choice. Raises UserError where the label names none."""
    said = str(row.cells.get(column)).strip()
    names = [name_of(number, naming) for number in range(len(choices))]
    if naming == "texts":
        names = [str(choice).strip() for choice in choices]
    else:
        said = label_number(row.cells.get(column)).upper()
    if said not in names:
        raise UserError(
            f"{row.place}: the label {shown(said)} names none of the {len(choices)} choices",
            f"it is to be one of {', '.join(names)}" if naming != "texts" else "it is to be a choice's text",
        )
    return names.index(said)


def _cells(row: Row, choices: Sequence[str]) -> list[Any]:
    """The row's choices. Raises UserError where a column that is to hold their list holds none."""
    if len(choices) > 1:
        return [row.cells.get(name) for name in choices]
    cell = row.cells.get(choices[0])
    if isinstance(cell, Mapping):  # as `datasets` has a list of objects with a text and a label
        cell = cell.get("text")
    if not isinstance(cell, list) or not all(isinstance(each, str) for each in cell):
        raise UserError(f"{row.place}: column {choices[0]} holds {shown(cell)}, not a list of texts", "correct it")
    return cell


# ---- looking up ----


def survey_choices(table: DataTable, said: OwnData) -> tuple[ChoiceFormat, tuple[str, ...]]:
    """(how the table is read, what was guessed). Raises UserError where it does not tell."""
    guesses: list[str] = []

    def column(name: str, usual: Sequence[str], what: str, option: str) -> str:
        if name:
            return text_column(table, name, what)
        by_name = {each.strip().lower(): each for each in table.columns}
        known = next((by_name[each] for each in usual if each in by_name), None)
        if known is None:
            raise _which(table, what, option)
        guesses.append(f"the {what} is taken from column {known}; name another with {option}")
        return known

    choices = tuple(table.column(name.strip(), "choices") for name in said.choices.split(",") if name.strip())
    if not choices:
        choices = _choice_columns(table)
        guesses.append(f"the choices are taken from {', '.join(choices)}; name others with --choices")
    text = column(said.text, CONTEXTS, "text", "--text")
    begin = text_column(table, said.pair, "text that begins each choice") if said.pair else None
    answer = column(said.label, ANSWERS, "label", "--label")
    columns = TextColumns(text=text, pair=begin, labels=(answer,))
    twice = [name for name in (text, begin, answer) if name in choices] or ([text] if text in (begin, answer) else [])
    if twice:
        raise UserError(f"{table.path}: one column is named for two things: {twice[0]}", "name others")
    count, naming = _survey(table, columns, choices, said.skip_empty)
    if naming == "from 1":
        guesses.append(f"{answer} has no 0, so the choices are counted from 1")
    return ChoiceFormat(
        columns=columns,
        choices=choices,
        count=count,
        naming=naming,
        skip_empty=said.skip_empty,
        options=said.options,
        held_out=said.held_out,
    ), tuple(guesses)


def _which(table: DataTable, what: str, option: str) -> UserError:
    return UserError(
        f"{table.path}: which column holds the {what}? Its columns: {', '.join(table.columns[:20])}",
        f"name it with {option}",
    )


def _choice_columns(table: DataTable) -> tuple[str, ...]:
    """Columns with a common name and a number or letter each, in their order, or one that is called as lists are."""
    groups: dict[str, list[str]] = {}
    for name in table.columns:
        if found := NUMBERED.fullmatch(name.strip()):
            groups.setdefault(found[1].lower(), []).append(name)
    several = [names for names in groups.values() if len(names) > 1]
    if len(several) == 1:
        return tuple(sorted(several[0], key=lambda name: name.strip().lower()))
    by_name = {each.strip().lower(): each for each in table.columns}
    known = next((by_name[each] for each in LISTS if each in by_name), None)
    if known is None:
        raise _which(table, "choices", "--choices, as in --choices ending0,ending1")
    return (known,)


def _survey(table: DataTable, columns: TextColumns, choices: Sequence[str], skip_empty: bool) -> tuple[int, Naming]:
    """(K, how the labels name a choice), by all rows."""
    count, said, exact = 0, set[str](), True
    for row in table.rows():
        cell, cells = row.cells.get(columns.labels[0]), _cells(row, choices)
        if is_missing(cell):
            if not skip_empty:
                raise missing_label(row, columns.labels[0])
            continue
        count = count or len(cells)
        exact = exact and str(cell).strip() in [str(each).strip() for each in cells]
        if len(said) <= MOST:
            said.add(label_number(cell).upper())
    if not said:
        raise UserError(f"{table.path}: column {columns.labels[0]} holds no labels", "name another with --label")
    if not 2 <= count <= MOST:
        raise UserError(f"{table.path}: has {count} choices a row", f"name 2 to {MOST} with --choices")
    for naming in ("from 0", "from 1", "letters"):
        if said <= {name_of(number, naming) for number in range(count)}:
            return count, naming
    if exact:
        return count, "texts"
    raise UserError(
        f"{table.path}: column {columns.labels[0]} holds {', '.join(sorted(said)[:6])}, which name none of the "
        f"{count} choices",
        "a label is the choice's number, from 0 or from 1, its letter, or its text",
    )
