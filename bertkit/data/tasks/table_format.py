"""Tasks whose examples are rows of a table: one text or two, and a class or a score.

Legend: N examples, C outputs of the head.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from bertkit.data.encoding import encode
from bertkit.data.features import Features
from bertkit.data.tasks.mrpc_raw import RAW, belongs
from bertkit.data.tasks.tables import Examples, read_examples, read_rows
from bertkit.data.tasks.task import (
    Answered,
    AnswerRules,
    Columns,
    Metrics,
    Part,
    Shape,
    Split,
    SplitName,
    Task,
    Tell,
    how_to_get,
)
from bertkit.errors import UserError
from bertkit.files import inputs
from bertkit.files.disk import write_json, write_text
from bertkit.model.tokenizer import Vocabulary


@dataclass(frozen=True)
class TableFormat:
    """Tab-separated tables, and GLUE's submission format for the answers."""

    score: Callable[[np.ndarray, np.ndarray], Metrics]  # (logits (N, C), labels (N,)) -> metrics
    submission: Mapping[str, str]  # part -> file name of the answers
    broken_rows: int = 0  # rows of the published train file that lack columns and are known to

    def find(self, task: Task, folder: Path, split: SplitName, one: Split) -> Path:
        path = folder / one.file
        raw = folder / RAW[split]
        there = inputs.exists(path)
        if not there and task.raw_files and inputs.exists(raw):
            return raw
        if not there:
            raise UserError(f"{path} is missing", how_to_get(task))
        return path

    def shaped_by(self, shape: Shape) -> Mapping[str, int | bool]:
        return {"rows": shape.rows, "seq_length": shape.seq_length}

    def features(
        self, task: Task, path: Path, split: SplitName, one: Split, vocabulary: Vocabulary, shape: Shape, tell: Tell
    ) -> Features:
        examples = self.examples_of(task, path, split, one, shape.rows)
        labels = {} if examples.labels is None else {"labels": examples.labels}
        total = len(examples.first)
        notes = {"skipped": np.array([examples.skipped])}
        return encode(
            vocabulary, examples.first, examples.second, labels, shape.seq_length, lambda done: tell(done, total), notes
        )

    def examples_of(self, task: Task, path: Path, split: SplitName, one: Split, rows: int = 0) -> Examples:
        """The rows of `path`; MRPC's also from Microsoft's raw files, of which two sets share one."""
        columns = one.columns or Columns(0)
        broken = self.broken_rows
        if task.raw_files and path.name == RAW[split]:
            return read_examples(task, path, columns, rows, keep=belongs(path.parent, split), broken_rows=broken)
        return read_examples(task, path, columns, rows, labelled=split != "test", broken_rows=broken)

    def faults(self, features: Features) -> tuple[str, ...]:
        skipped = int(features.notes["skipped"][0])
        return (f"{skipped} broken rows of the published file are left out",) if skipped else ()

    def examples(self, features: Features) -> int:
        return len(features)

    def fitting(self, task: Task, path: Path, split: SplitName) -> Split:
        """The split's part, or the dev set's where the file's first line fits this and not the other."""
        one = task.splits[split][0]
        first = next(read_rows(path))[1]
        for other in task.splits.get("dev", ()):
            if one.columns and other.columns and one.columns.first not in first and _fits(other.columns, first):
                return other
        return one

    def answer(self, task: Task, part: Part, outputs: Mapping[str, np.ndarray], rules: AnswerRules) -> Answered:
        logits = outputs["logits"]
        labels = part.features.labels.get("labels")
        metrics = {} if labels is None else self.score(logits, labels)
        return Answered(metrics, functools.partial(self._write, task, logits, self.submission[part.name]))

    def _write(self, task: Task, logits: np.ndarray, name: str, folder: Path, infix: str) -> Path:
        path = folder / name.replace(".tsv", f"{infix}.tsv")
        write_answers(path, answers(task, logits))
        write_json(path.with_suffix(".logits.json"), [[float(f"{value:.7g}") for value in row] for row in logits])
        return path


def answers(task: Task, logits: np.ndarray) -> list[str]:
    """(N, C) logits -> what the submission file says of each example."""
    if task.labels:
        return [task.labels[number] for number in logits.argmax(-1)]
    return [f"{score:.3f}" for score in logits[:, 0]]


def write_answers(path: Path, said: list[str]) -> None:
    """GLUE's submission format: a header, then number and answer."""
    rows = [f"{number}\t{answer}" for number, answer in enumerate(said)]
    write_text(path, "\n".join(["index\tprediction", *rows]) + "\n")


def _fits(columns: Columns, first_row: list[str]) -> bool:
    return columns.first in first_row if columns.header else len(first_row) == columns.columns
