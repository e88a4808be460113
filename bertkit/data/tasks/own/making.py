"""A task made of a user's training file: the columns and labels are looked up, and what was guessed is said."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from bertkit.data.tables.opening import open_table
from bertkit.data.tables.table import DataTable, TableOptions, shown
from bertkit.data.tasks.metrics import PRIMARIES
from bertkit.data.tasks.own.base import OwnData, OwnFormat
from bertkit.data.tasks.own.choices import CHOICE_METRICS, ChoiceFormat, survey_choices
from bertkit.data.tasks.own.columns import choose_columns
from bertkit.data.tasks.own.labels import CHOICE, TAGGING, survey_labels
from bertkit.data.tasks.own.rows import RowFormat
from bertkit.data.tasks.own.tokens import TokenFormat, survey_tags, tag_metrics
from bertkit.data.tasks.task import Split, Task
from bertkit.errors import UserError, nearest
from bertkit.model.config import Head

AnyFormat = RowFormat | ChoiceFormat | TokenFormat
TITLES: Mapping[str, str] = {
    "classification": "one class for each row of a table",
    "multilabel": "any number of labels for each row of a table",
    "regression": "a number for each row of a table",
    CHOICE: "one of several texts for each row of a table",
    TAGGING: "a tag for each token of a sentence",
}


def make_own_task(train: Path, said: OwnData, say: Callable[[str], object]) -> Task:
    """The task that the training file is of; reads all of its labels. Raises UserError where none can be made."""
    table = open_table(train, said.options)
    if said.kind == TAGGING:
        return _make_tagging(table, said, say)
    if said.kind == CHOICE:
        return _make_choice(table, said, say)
    if said.choices:
        raise UserError("table.choices is for multiple choice", f"say -t {CHOICE}, or drop it")
    chosen = choose_columns(table, said.text, said.pair, said.label)
    facts = survey_labels(table, chosen.columns, said.kind, said.separator, said.skip_empty)
    group = said.held_out.group if said.held_out else ""
    if group:
        table.column(group, "group")
    say(f"data: {train}: {table.form}; {chosen.columns.described()}: {facts.kind}{_labels(facts.labels)}")
    for guess in (*table.guesses, *chosen.guesses, *facts.guesses):
        say(f"data: {guess}")
    if said.separator and facts.separator != said.separator:
        say(f"data: table.separator is not used: {facts.kind} has no cells with several labels")
    own = RowFormat(
        kind=facts.kind,
        columns=chosen.columns,
        separator=facts.separator,
        skip_empty=said.skip_empty,
        options=said.options,
        held_out=said.held_out,
    )
    return task_of_format(own, facts.labels, said.metric)


def _make_tagging(table: DataTable, said: OwnData, say: Callable[[str], object]) -> Task:
    group = said.held_out and said.held_out.group
    given = {"group": group, "text_pair": said.pair, "separator": said.separator, "choices": said.choices}
    for name in (name for name, value in given.items() if value):
        raise UserError(f"table.{name} is for rows with texts and labels, not for tags of tokens", "drop it")
    columns, labels, scheme = survey_tags(table, said.text, said.label)
    named = f"tags by {scheme}" if scheme else "plain tags"
    say(f"data: {table.path}: {table.form}; tokens in {columns.text}, {named} in {columns.labels[0]}{_labels(labels)}")
    for guess in table.guesses:
        say(f"data: {guess}")
    own = TokenFormat(columns=columns, scheme=scheme, options=said.options, held_out=said.held_out)
    return task_of_format(own, labels, said.metric)


def _make_choice(table: DataTable, said: OwnData, say: Callable[[str], object]) -> Task:
    given = {"group": said.held_out and said.held_out.group, "separator": said.separator}
    for name in (name for name, value in given.items() if value):
        raise UserError(f"table.{name} is not for multiple choice", "drop it")
    own, guesses = survey_choices(table, said)
    begin = f", each begins with {own.columns.pair}" if own.columns.pair else ""
    say(
        f"data: {table.path}: {table.form}; text in column {own.columns.text}, {own.count} choices in "
        f"{', '.join(own.choices)}{begin}; label in {own.columns.labels[0]} ({own.naming})"
    )
    for guess in (*table.guesses, *guesses):
        say(f"data: {guess}")
    return task_of_format(own, (), said.metric)


def _labels(labels: tuple[str, ...]) -> str:
    if not labels:
        return ""
    shown = ", ".join(label[:20] for label in labels[:6]) + (", …" if len(labels) > 6 else "")
    return f" with {len(labels):,} labels ({shown})"


def task_of_format(own: AnyFormat, labels: tuple[str, ...], metric: str = "") -> Task:
    """Raises UserError for a metric that the kind does not have."""
    kind, head, known = _kind(own, labels)
    if metric and metric not in known:
        raise UserError(f"there is no metric {metric!r} for {kind}", nearest(metric, known))
    return Task(
        name=kind,
        title=TITLES[kind],
        folder="",
        splits={"train": (Split("train"),), "dev": (Split("dev"),), "test": (Split("test"),)},
        head=head,
        primary=metric or known[0],
        format=own,
        labels=labels,
    )


def _kind(own: AnyFormat, labels: tuple[str, ...]) -> tuple[str, Head, tuple[str, ...]]:
    """(the kind of task, its head, the metrics that can pick the best checkpoint)."""
    if isinstance(own, ChoiceFormat):
        return CHOICE, Head("choice", own.count), CHOICE_METRICS
    if isinstance(own, TokenFormat):
        return TAGGING, Head("tokens", max(1, len(labels))), tag_metrics(own.scheme)
    outputs = len(own.columns.labels) if own.kind == "regression" else len(labels)
    return own.kind, Head(own.kind, max(1, outputs)), PRIMARIES[own.kind]


def check_groups(train: Path, dev: Path, column: str, options: TableOptions) -> None:
    """Raises UserError where a group of the training file, as the rows of one customer, is in the dev file too."""
    learned, scored = (open_table(path, options) for path in (train, dev))
    seen = {str(row.cells.get(name)) for name in (learned.column(column, "group"),) for row in learned.rows()}
    name = scored.column(column, "group")
    for row in scored.rows():
        if str(row.cells.get(name)) in seen:
            raise UserError(
                f"{row.place}: {name} {shown(row.cells.get(name))} is in the training file too",
                "keep each group in one of the two files, or drop table.group",
            )


# ---- keeping: a run's task.json ----


def to_values(own: OwnFormat) -> dict[str, Any]:
    """The format as JSON has it."""
    return dataclasses.asdict(own)


def from_values(values: object, labels: object, metric: object, where: str, cure: str) -> Task:
    """The task of which `to_values` kept the format. Raises UserError where it is not as it was written."""
    try:
        own = TypeAdapter(AnyFormat).validate_python(values)
        return task_of_format(own, TypeAdapter(tuple[str, ...]).validate_python(labels), str(metric))
    except (ValidationError, UserError):
        raise UserError(f"{where}: does not tell how its own data is read", cure) from None
