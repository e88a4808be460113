"""Tasks whose examples are rows of users' tables: rows as features, and answers as a table.

Legend: N examples, C outputs of the head.
"""

from __future__ import annotations

import csv
import dataclasses
import functools
import io
import json
from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from bertkit.data.encoding import encode
from bertkit.data.features import Features
from bertkit.data.tables.opening import open_table
from bertkit.data.tables.table import DataTable, Row, is_missing, number_of, shown
from bertkit.data.tasks.details import at_thresholds, behind
from bertkit.data.tasks.metrics import OWN_METRICS, probabilities
from bertkit.data.tasks.own.base import OwnFormat
from bertkit.data.tasks.own.columns import columns_in, no_text, texts_of
from bertkit.data.tasks.own.held_out import mask
from bertkit.data.tasks.own.labels import RowKind, label_text, missing_label, one_or_zero, parted
from bertkit.data.tasks.task import Answered, AnswerRules, Part, Shape, Split, SplitName, Task, Tell
from bertkit.errors import UserError, nearest
from bertkit.files.disk import write_json, write_text
from bertkit.model.vocabulary import Vocabulary

THRESHOLD = 0.5  # of a label's probability, where several may apply


@dataclass(frozen=True, kw_only=True)
class RowFormat(OwnFormat):
    """A row is an example: one text or two, and a class, several labels, or numbers."""

    kind: RowKind
    separator: str = ""  # of the labels in a cell; "": a cell holds one, or is a list
    # Fitted on the dev set at the training's end, where it was asked for:
    temperature: float = 1.0  # of classes: what logits are divided by before they become probabilities
    thresholds: tuple[float, ...] = ()  # of labels any number of which may apply; (): THRESHOLD

    @property
    def stratified(self) -> bool:
        return self.kind != "regression"

    @property
    def answers_rows(self) -> bool:
        return True

    def texts_in(self, table: DataTable) -> Iterator[tuple[str, ...]]:
        columns = columns_in(table, self.columns, labelled=False)
        for row in table.rows():
            texts = texts_of(row, columns)
            if texts is None:
                raise no_text(row, columns, "fill it in or remove the row")
            yield texts

    def features(
        self, task: Task, path: Path, split: SplitName, one: Split, vocabulary: Vocabulary, shape: Shape, tell: Tell
    ) -> Features:
        examples = read_examples(task, self, path, split, shape.rows)
        total = len(examples.first)
        labels = {} if examples.labels is None else {"labels": examples.labels}
        notes = {"skipped": np.array([examples.skipped])}
        return encode(
            vocabulary, examples.first, examples.second, labels, shape.seq_length, lambda done: tell(done, total), notes
        )

    def answer(self, task: Task, part: Part, outputs: Mapping[str, np.ndarray], rules: AnswerRules) -> Answered:
        logits, labels = outputs["logits"], part.features.labels.get("labels")
        metrics = {} if labels is None else OWN_METRICS[self.kind](logits, labels)
        if labels is not None and self.thresholds:
            metrics |= at_thresholds(labels, probabilities(self.kind, logits), self.thresholds)
        names = task.labels or self.columns.labels
        more = behind(self.kind, logits, labels, names, part.features.sizes)
        return Answered(metrics, functools.partial(_write, task, self, logits, part), more)

    def shaped_by(self, shape: Shape) -> Mapping[str, int | bool | str]:
        return {**super().shaped_by(shape), "own": json.dumps(dataclasses.asdict(self.uncalibrated))}

    @property
    def uncalibrated(self) -> RowFormat:
        """As before anything was fitted on answers; features do not depend on that."""
        return dataclasses.replace(self, temperature=1.0, thresholds=())


# ---- reading ----


@dataclass(frozen=True)
class OwnExamples:
    """N examples as columns."""

    first: tuple[str, ...]
    second: tuple[str, ...] | None
    labels: np.ndarray | None  # (N,) int64 classes or float32 targets; (N, C) float32 where there are several
    skipped: int


def read_examples(task: Task, own: RowFormat, path: Path, split: SplitName, rows: int = 0) -> OwnExamples:
    """The examples of one file, or of the part of the training file that is this split's; `rows`: only so many."""
    table = open_table(path, own.options)
    columns = columns_in(table, own.columns, labelled=True if split != "test" else None)
    firsts: list[str] = []
    seconds: list[str] = []
    labels: list[Any] = []
    groups: list[Hashable] = []
    apart, skipped = own.held_out if split != "test" else None, 0
    for row in table.rows():
        texts = texts_of(row, columns)
        label = _label(task, own, table, row, columns.labels) if columns.labels and texts else None
        if texts is None or (columns.labels and label is None):
            if not own.skip_empty:
                raise no_text(row, columns) if texts is None else missing_label(row, ", ".join(columns.labels))
            skipped += 1
            continue
        firsts.append(texts[0])
        if columns.pair:
            seconds.append(texts[1])
        labels.append(label)
        if apart and apart.group:
            groups.append(str(row.cells.get(apart.group)))
        if rows and not apart and len(firsts) == rows:
            break
    if not firsts:
        raise UserError(f"{path}: holds no rows", "name a file with rows")
    chosen: Sequence[int] = range(len(firsts))
    if apart:
        aside = mask(apart, _strata(own.kind, labels), groups if apart.group else None, path)
        chosen = np.flatnonzero(aside == (split == "dev"))[: rows or None].tolist()
    dtype = np.int64 if own.kind == "classification" else np.float32
    return OwnExamples(
        first=tuple(firsts[number] for number in chosen),
        second=tuple(seconds[number] for number in chosen) if columns.pair else None,
        labels=np.array([labels[number] for number in chosen], dtype) if columns.labels else None,
        skipped=skipped,
    )


def _label(task: Task, own: RowFormat, table: DataTable, row: Row, names: Sequence[str]) -> Any:
    """The row's label as the engine takes it; None where the cell is empty."""
    cells = [row.cells.get(name) for name in names]
    if any(is_missing(cell) for cell in cells):
        return [0.0] * len(task.labels) if own.kind == "multilabel" and cells == [""] else None
    if own.kind == "regression":
        values = [_number(cell, row, name) for cell, name in zip(cells, names, strict=True)]
        return values if len(values) > 1 else values[0]
    if own.kind == "classification":
        return _class_number(task, label_text(cells[0], table, names[0], row), row)
    if len(names) > 1:
        found = [one_or_zero(cell) for cell in cells]
        if None in found:
            raise UserError(f"{row.place}: {', '.join(names)} hold others than 0 and 1", "write 0 or 1 in each")
        return found
    return _several(task, own, table, row, cells[0], names[0])


def _several(task: Task, own: RowFormat, table: DataTable, row: Row, cell: Any, name: str) -> list[float]:
    values = cell if isinstance(cell, list) else [cell]
    texts = [label for value in values for label in parted(label_text(value, table, name, row), own.separator)]
    found = [0.0] * len(task.labels)
    for text in texts:
        found[_class_number(task, text, row)] = 1.0
    return found


def _number(cell: Any, row: Row, name: str) -> float:
    value = number_of(cell)
    if not abs(value) <= float(np.finfo(np.float32).max):
        raise UserError(f"{row.place}: column {name} holds {shown(cell)}, which is no number", "correct the cell")
    return value


def _class_number(task: Task, text: str, row: Row) -> int:
    try:
        return task.labels.index(text)
    except ValueError:
        raise UserError(
            f"{row.place}: the label {shown(text)} does not occur in the training file", nearest(text, task.labels)
        ) from None


def _strata(kind: RowKind, labels: Sequence[Any]) -> list[Hashable]:
    if kind == "regression":
        return [0] * len(labels)
    return [tuple(label) if isinstance(label, list) else label for label in labels]


# ---- answers ----


def said_of(task: Task, own: RowFormat, logits: np.ndarray) -> list[dict[str, Any]]:
    """(N, C) logits -> of each example: label and probability, labels and probabilities, or values."""
    kind, thresholds = own.kind, own.thresholds or (THRESHOLD,) * logits.shape[1]
    if kind == "regression":
        names = task.labels or ("value",)
        return [dict(zip(names, map(float, row), strict=True)) for row in logits]
    found = []
    for row in probabilities(kind, logits / own.temperature):
        if kind == "classification":
            best = int(row.argmax())
            found.append({"label": task.labels[best], "probability": float(row[best])})
            continue
        over = [number for number in np.argsort(-row, kind="stable") if row[number] >= thresholds[number]]
        labels = [task.labels[number] for number in over]
        found.append({"labels": labels, "probabilities": [float(row[number]) for number in over]})
    return found


def _write(task: Task, own: RowFormat, logits: np.ndarray, part: Part, folder: Path, infix: str) -> Path:
    path = folder / f"{task.name}{infix}.csv"
    made = said_of(task, own, logits)
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["row", *made[0]])
    writer.writerows([number, *map(cell_text, row.values())] for number, row in enumerate(made))
    write_text(path, text.getvalue())
    write_json(path.with_suffix(".logits.json"), [[float(f"{value:.7g}") for value in row] for row in logits])
    return path


def cell_text(value: Any) -> str:
    """A value as a cell: several are parted by bars, numbers have six digits."""
    if isinstance(value, list):
        return "|".join(cell_text(each) for each in value)
    return f"{value:.6g}" if isinstance(value, float) else str(value)
