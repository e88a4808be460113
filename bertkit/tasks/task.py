"""What a task is: its files, its labels, its metrics, and how its predictions are written down.

Legend: N examples, C outputs of the head.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from bertkit.errors import UserError
from bertkit.model_config import Head

SplitName = Literal["train", "dev", "test"]
Metrics = dict[str, float]


@dataclass(frozen=True)
class Columns:
    """Where a table's file keeps what, by the header's names, or by number (from 0) where there is no header."""

    first: str | int
    second: str | int | None = None
    label: str | int | None = None
    header: bool = True
    columns: int | None = None  # expected in every row; None: as many as the header has


@dataclass(frozen=True)
class Split:
    """One file of a task, under the task's folder."""

    file: str
    columns: Columns
    part: str = ""  # suffix of its metrics and predictions where a task has two dev sets: "mm"


@dataclass(frozen=True)
class Examples:
    """N examples as columns."""

    first: tuple[str, ...]
    second: tuple[str, ...] | None
    labels: np.ndarray | None  # (N,) int64 class numbers, or float32 scores
    skipped: int = 0  # rows left out because the published file itself is broken there


@dataclass(frozen=True)
class Task:
    """What to learn and how to score it."""

    name: str
    title: str
    folder: str  # under the data folder
    labels: tuple[str, ...]  # class names in the order of the logits; empty: regression
    splits: Mapping[SplitName, tuple[Split, ...]]
    score: Callable[[np.ndarray, np.ndarray], Metrics]  # (logits (N, C), labels (N,)) -> metrics
    primary: str  # the metric that picks the best checkpoint; larger is better
    submission: Mapping[str, str]  # part -> file name of GLUE's submission format
    version: int = 1  # raise it when the same files would give other features
    vocab: str = ""  # a vocabulary of its own, beside its files
    parts_of: str = ""  # a test-only task that is answered by another task's model
    raw_files: tuple[str, ...] = ()  # files that can stand for the table's own, as Microsoft's do for MRPC
    broken_rows: int = 0  # rows of the published train file that lack columns and are known to

    @property
    def head(self) -> Head:
        return Head("classification", len(self.labels)) if self.labels else Head("regression", 1)

    def label(self, text: str) -> float:
        """The class number of a label's text, or the score it spells. Raises ValueError where it is neither."""
        if self.labels:
            return self.labels.index(text)
        value = float(text)
        if not np.isfinite(value):
            raise ValueError(text)
        return value

    def answers(self, logits: np.ndarray) -> list[str]:
        """(N, C) logits -> what the submission file says of each example."""
        if self.labels:
            return [self.labels[number] for number in logits.argmax(-1)]
        return [f"{score:.3f}" for score in logits[:, 0]]


def split_files(task: Task, name: SplitName) -> tuple[Split, ...]:
    """The task's files for `name`. Raises UserError where it has none, as AX has no training file."""
    if not task.splits.get(name):
        cure = f"train {task.parts_of} and predict {task.name} with its model" if task.parts_of else ""
        raise UserError(f"task {task.name} has no {name} set", cure)
    return task.splits[name]


def task_folder(task: Task, data_dir: Path) -> Path:
    """The folder with the task's files: `data_dir` itself, a folder in it, or in its `glue/`.

    Raises UserError, naming the folder and how to fill it.
    """
    if not data_dir.is_dir():
        raise UserError(f"the data folder {data_dir} does not exist", f"name it with --data-dir, or {_get(task)}")
    names = {task.folder.lower(), task.name}
    inside = [data_dir, *(path for path in (data_dir / "glue",) if path.is_dir())]
    for parent in inside:
        for path in sorted(parent.iterdir()):
            if path.is_dir() and path.name.lower() in names:
                return path
    files = {split.file for splits in task.splits.values() for split in splits} | set(task.raw_files)
    if any((data_dir / file).exists() for file in files):
        return data_dir
    raise UserError(f"{data_dir} holds no folder {task.folder} with {task.name}'s files", _get(task))


def _get(task: Task) -> str:
    return f"`bertkit data get {task.name}` fetches the files"
