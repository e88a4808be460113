"""Tasks whose examples are rows of a table: one text or two, and a class or a score.

Tab-separated tables are read strictly: every fault is named with its file, line and cure. `table_task` makes a task of
a table's columns, labels and metrics.

Legend: N examples, C outputs of the head.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from bertkit.data.encoding import encode
from bertkit.data.features import Features
from bertkit.data.tasks.details import behind
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
from bertkit.model.config import Head
from bertkit.model.vocabulary import Vocabulary

Splits = Mapping[SplitName, tuple[Split, ...]]
SCORE = re.compile(r"\s*[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?\s*", re.ASCII)
Row = tuple[int, list[str]]  # line number from 1, cells
# MRPC from Microsoft's raw files: GLUE's train and dev are both in the raw train file, told apart by `dev_ids.tsv`.
RAW: dict[SplitName, str] = {
    "train": "msr_paraphrase_train.txt",
    "dev": "msr_paraphrase_train.txt",
    "test": "msr_paraphrase_test.txt",
}
ID_COLUMNS = slice(1, 3)  # "#1 ID" and "#2 ID" of the raw file
NO_NAMES: Mapping[str, str] = {}


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
            return read_examples(task, path, columns, rows, keep=belongs_to(path.parent, split), broken_rows=broken)
        return read_examples(task, path, columns, rows, labelled=split != "test", broken_rows=broken)

    def gold(self, task: Task, path: Path, columns: Columns) -> np.ndarray | None:
        """(N,) the labels of a file with answers; None where it has none."""
        return read_examples(task, path, columns, labelled=not columns.header).labels

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
        write = functools.partial(self._write, task, logits, self.submission[part.name])
        return Answered(metrics, write, behind(task.head.kind, logits, labels, task.labels, part.features.sizes))

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


def glue_table(
    name: str,
    title: str,
    folder: str,
    labels: tuple[str, ...],
    splits: Splits,
    score: Callable[[np.ndarray, np.ndarray], Metrics],
    primary: str,
    submission: Mapping[str, str],
    broken_rows: int = 0,
    vocab: str = "",
    parts_of: str = "",
    raw_files: tuple[str, ...] = (),
    other_labels: tuple[str, ...] = (),
) -> Task:
    """A task over tables with all that GLUE's need; `table_task` makes those of others."""
    head = Head("classification", len(labels)) if labels else Head("regression", 1)
    own = TableFormat(score, submission, broken_rows)
    return Task(
        name, title, folder, splits, head, primary, own, labels, other_labels,
        vocab=vocab, parts_of=parts_of, raw_files=raw_files,
    )  # fmt: skip


# ---- reading ----


@dataclass(frozen=True)
class Examples:
    """N examples as columns."""

    first: tuple[str, ...]
    second: tuple[str, ...] | None
    labels: np.ndarray | None  # (N,) int64 class numbers, or float32 scores
    skipped: int = 0  # rows left out because the published file itself is broken there


def read_rows(path: Path) -> Iterator[Row]:
    """Lines of a UTF-8 file (with or without a byte-order mark) cut at tabs; quotes mean nothing, as in GLUE.

    Raises UserError where the file is missing, empty or not UTF-8.
    """
    raw = inputs.read_bytes(path, "check --data-dir", inputs.DATA_BYTES).removeprefix(b"\xef\xbb\xbf")
    lines = raw.split(b"\n")  # \n only: texts hold other line separators
    if not raw.strip():
        raise UserError(f"{path}: is empty", "fetch it again")
    for number, line in enumerate(lines[:-1] if lines[-1] == b"" else lines, start=1):
        try:
            yield number, line.rstrip(b"\r").decode("utf-8").split("\t")
        except UnicodeDecodeError as error:
            raise UserError(
                f"{path}:{number}: not UTF-8 at byte {error.start + 1} of the line", "save the file as UTF-8"
            ) from None


def read_examples(
    task: Task,
    path: Path,
    columns: Columns,
    rows: int = 0,
    labelled: bool = True,
    keep: Callable[[list[str]], bool] = lambda cells: True,
    broken_rows: int = 0,
    renamed: Mapping[str, str] = NO_NAMES,
) -> Examples:
    """The examples of one file for whose cells `keep` holds; `rows`: only so many from its beginning (0: all).

    A file without the label's column gives examples without labels where `labelled` is False. `broken_rows`: so many
    rows that lack columns are left out. `renamed`: labels of the file that are called otherwise by the task.
    """
    lines = read_rows(path)
    first, second, label, width = text_places(path, columns, lines, labelled)
    texts: list[str] = []
    pairs: list[str] = []
    labels: list[float] = []
    skipped = 0
    for number, cells in lines:
        if len(cells) != width:
            if skipped < broken_rows and len(cells) < width:
                skipped += 1
                continue
            raise UserError(f"{path}:{number}: has {len(cells)} columns, not {width}", "mend or fetch the file again")
        if not keep(cells):
            continue
        texts.append(cells[first])
        if second is not None:
            pairs.append(cells[second])
        if label is not None:
            labels.append(_label(task, renamed.get(cells[label], cells[label]), path, number))
        if rows and len(texts) == rows:
            break
    if not texts:
        raise UserError(f"{path}: holds no examples, only a header", "fetch it again")
    dtype = np.int64 if task.labels else np.float32
    known = None if label is None else np.array(labels, dtype)
    return Examples(tuple(texts), tuple(pairs) if second is not None else None, known, skipped)


def class_or_score(task: Task, text: str) -> float:
    """The class number of a label's text, or the score it spells. Raises ValueError where it is neither."""
    if task.labels:
        return task.labels.index(text)
    value = float(text) if SCORE.fullmatch(text) else np.nan
    if not abs(value) <= float(np.finfo(np.float32).max):
        raise ValueError(text)
    return value


def _label(task: Task, text: str, path: Path, line: int) -> float:
    try:
        return class_or_score(task, text)
    except ValueError:
        known = "one of " + ", ".join(task.labels) if task.labels else "a number"
        raise UserError(f"{path}:{line}: {text!r} is no label of {task.name}", f"it must be {known}") from None


def text_places(
    path: Path, columns: Columns, lines: Iterator[Row], labelled: bool
) -> tuple[int, int | None, int | None, int]:
    """(first, second, label, width): column numbers, from the header where there is one, which is consumed."""
    if not columns.header:
        label = columns.label if labelled else None
        second = None if columns.second is None else int(columns.second)
        return int(columns.first), second, None if label is None else int(label), columns.columns or 0
    _, header = next(lines)

    def place(name: str | int) -> int:
        if name not in header:
            raise UserError(f"{path}:1: has no column {name!r}; its columns are {', '.join(header)}", "fetch it again")
        return header.index(str(name))

    wants_label = columns.label is not None and (labelled or columns.label in header)
    return (
        place(columns.first),
        None if columns.second is None else place(columns.second),
        place(columns.label) if wants_label and columns.label is not None else None,
        len(header),
    )


def belongs_to(folder: Path, split: SplitName) -> Callable[[list[str]], bool]:
    """Whether a raw row's cells belong to `split`. Raises UserError without `dev_ids.tsv`."""
    if split == "test":
        return lambda cells: True
    ids = folder / "dev_ids.tsv"
    if not inputs.exists(ids):
        raise UserError(f"{ids} is missing, so the raw MRPC file cannot be split", "`bertkit data get mrpc` fetches it")
    dev = {tuple(cells) for _, cells in read_rows(ids)}
    return lambda cells: (tuple(cells[ID_COLUMNS]) in dev) == (split == "dev")
