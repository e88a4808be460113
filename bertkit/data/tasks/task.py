"""What a task is: its files, what is trained on them, and how its answers are scored and written down.

Legend: N sequences, T tokens of them, C outputs of the head.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np

from bertkit.data.features import Features
from bertkit.data.tasks.metrics import Metrics as Metrics
from bertkit.errors import UserError
from bertkit.files import inputs
from bertkit.files.downloads import load_sources
from bertkit.model.config import Head
from bertkit.model.vocabulary import Vocabulary

SplitName = Literal["train", "dev", "test"]
Tell = Callable[[int, int], object]  # (done, of how many)


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
    columns: Columns | None = None  # of a table
    part: str = ""  # suffix of its metrics and predictions where a task has two dev sets: "mm"


@dataclass(frozen=True)
class Shape:
    """How examples become sequences."""

    seq_length: int  # maximum sequence length in tokens
    rows: int = 0  # only the first so many examples; 0: all
    doc_stride: int = 128  # tokens from one window over a long context to the next
    query_length: int = 64  # most tokens of a question
    strict: bool = False  # a fault in the data that is otherwise counted is an error


@dataclass(frozen=True)
class AnswerRules:
    """How a span is chosen from its logits."""

    n_best: int = 20
    longest: int = 30  # maximum answer length in tokens
    null_threshold: float = 0.0  # "no answer" where it beats the best answer by more than this


@dataclass(frozen=True)
class Part:
    """One file of a split, encoded."""

    name: str  # "" or the part's suffix, as in mnli's "mm"
    file: Path
    sha256: str  # of the file
    features: Features
    examples: int  # in the file; a long one makes several sequences
    faults: tuple[str, ...]  # what was found wrong in the file and left out, in words
    rows: int = 0  # only so many examples of the file; 0: all
    held_out: str = ""  # how it was set aside from the training file, in words; "": a file of its own


@dataclass(frozen=True)
class Answered:
    """A part's answers."""

    metrics: Metrics  # empty where the file has no labels
    write: Callable[[Path, str], Path]  # (folder, "" or "-dev") -> the main file; writes all of its files
    details: Callable[[], Mapping[str, Any]] | None = None  # what lies behind the metrics, worked out when asked for


class Format(Protocol):
    """How a family of tasks reads its files and makes answers of a model's outputs."""

    def find(self, task: Task, folder: Path, split: SplitName, one: Split) -> Path:
        """The file of one part of a split. Raises UserError where it is missing."""

    def shaped_by(self, shape: Shape) -> Mapping[str, int | bool | str]:
        """What of `shape` the features depend on."""

    def features(
        self, task: Task, path: Path, split: SplitName, one: Split, vocabulary: Vocabulary, shape: Shape, tell: Tell
    ) -> Features:
        """The file's examples as features; `notes` keep what answering needs."""

    def fitting(self, task: Task, path: Path, split: SplitName) -> Split:
        """Which of the task's parts a user's file is like, that stands for `split`."""

    def faults(self, features: Features) -> tuple[str, ...]:
        """What was wrong in the file and left out, in words."""

    def examples(self, features: Features) -> int:
        """How many examples the features were made of."""

    def answer(self, task: Task, part: Part, outputs: Mapping[str, np.ndarray], rules: AnswerRules) -> Answered:
        """The head's outputs over all of the part's sequences, in their order -> answers."""


@dataclass(frozen=True)
class Task:
    """What to learn and how to score it."""

    name: str
    title: str
    folder: str  # under the data folder
    splits: Mapping[SplitName, tuple[Split, ...]]
    head: Head
    primary: str  # the metric that picks the best checkpoint
    format: Format
    labels: tuple[str, ...] = ()  # class names in the order of the logits
    other_labels: tuple[str, ...] = ()  # the same classes as Hugging Face's dataset of this task calls them
    version: int = 1  # raise it when the same files would give other features
    recipe: str = ""  # the recipe that its runs start from where no other is named
    vocab: str = ""  # a vocabulary of its own, beside its files
    parts_of: str = ""  # a test-only task that is answered by another task's model
    models_of: tuple[str, ...] = ()  # other tasks whose models answer this one too
    raw_files: tuple[str, ...] = ()  # files that can stand for the table's own, as Microsoft's do for MRPC
    sources: tuple[str, ...] = ()  # entries of the table of sources that bring its files; (): the one of its name


def sources_of(task: Task) -> tuple[str, ...]:
    """The names of the entries of the table of sources that bring the task's files, where there are such."""
    return task.sources or (task.name,)


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
    if not inputs.is_folder(data_dir):
        raise UserError(f"the data folder {data_dir} does not exist", f"name it with --data-dir, or {how_to_get(task)}")
    names = {task.folder.lower(), task.name}
    inside = [data_dir, *(path for path in (data_dir / "glue",) if inputs.is_folder(path))]
    for parent in inside:
        for path in inputs.inside(parent):
            if path.name.lower() in names and inputs.is_folder(path):
                return path
    files = {split.file for splits in task.splits.values() for split in splits} | set(task.raw_files)
    if any(inputs.exists(data_dir / file) for file in files):
        return data_dir
    raise UserError(f"{data_dir} holds no folder {task.folder} with {task.name}'s files", how_to_get(task))


def how_to_get(task: Task) -> str:
    """How a missing file comes here."""
    if set(sources_of(task)) <= load_sources().keys():
        return f"`bertkit data get {' '.join(sources_of(task))}` fetches the files"
    files = ", ".join(dict.fromkeys(split.file for splits in task.splits.values() for split in splits))
    return f"put {files} into a folder {task.folder} of the data folder"
