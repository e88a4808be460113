"""From a task and a data folder to examples and features."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from bertkit.disk import sha256_file
from bertkit.errors import UserError
from bertkit.features import Features, cache_key, cached
from bertkit.tasks.mrpc_raw import RAW, belongs
from bertkit.tasks.tables import read_examples, read_rows
from bertkit.tasks.task import Columns, Examples, Split, SplitName, Task, split_files, task_folder
from bertkit.tokenizer import LONGEST_WORD, Vocabulary, encode

Progress = Callable[[str, int, int], object]  # (what, done, of how many)


@dataclass(frozen=True)
class Part:
    """One file of a split, encoded."""

    name: str  # "" or the part's suffix, as in mnli's "mm"
    file: Path
    sha256: str  # of the file
    features: Features
    skipped: int  # rows of a published file that are broken in it


def read_part(task: Task, folder: Path, split: SplitName, one: Split, rows: int) -> tuple[Path, Examples]:
    """The file and examples of one part of a split; MRPC also from Microsoft's raw files."""
    path = folder / one.file
    if task.name == "mrpc" and not path.exists() and (folder / RAW[split]).exists():
        raw = folder / RAW[split]
        return raw, read_examples(task, raw, one.columns, rows, keep=belongs(folder, split))
    if not path.exists():
        raise UserError(f"{path} is missing", f"`bertkit data get {task.name}` fetches it")
    return path, read_examples(task, path, one.columns, rows, labelled=split != "test")


def read_split(
    task: Task,
    data_dir: Path,
    split: SplitName,
    vocabulary: Vocabulary,
    seq_length: int,
    rows: int = 0,
    cache: Path | None = None,
    progress: Progress = lambda what, done, of: None,
) -> list[Part]:
    """Every file of the split as Features, from the cache where nothing that shapes them has changed."""
    folder = task_folder(task, data_dir)
    parts = []
    for one in split_files(task, split):
        path, examples = read_part(task, folder, split, one, rows)
        digest = sha256_file(path)
        name = f"{split}{one.part}"
        key = cache_key(
            task=task.name,
            task_version=task.version,
            split=name,
            text=digest,
            rows=rows,
            vocabulary=vocabulary.digest,
            lower_case=vocabulary.lower_case,
            longest_word=LONGEST_WORD,
            seq_length=seq_length,
        )
        tell = functools.partial(progress, f"encoding {task.name} {name}")
        build = functools.partial(_encode, examples, vocabulary, seq_length, tell)
        features = cached(cache, f"{task.name}-{name}", key, build)
        parts.append(Part(one.part, path, digest, features, examples.skipped))
    return parts


def _encode(
    examples: Examples,
    vocabulary: Vocabulary,
    seq_length: int,
    tell: Callable[[int, int], object] = lambda done, of: None,
) -> Features:
    labels = {} if examples.labels is None else {"labels": examples.labels}
    total = len(examples.first)
    return encode(vocabulary, examples.first, examples.second, labels, seq_length, lambda done: tell(done, total))


def _columns(task: Task, path: Path, split: SplitName) -> Columns:
    """The columns of `split`, or those of the dev set where the file's first line fits these and not the others."""
    columns = task.splits[split][0].columns
    first = next(read_rows(path))[1]
    for other in task.splits.get("dev", ()):
        fits = other.columns.first in first if other.columns.header else len(first) == other.columns.columns
        if columns.first not in first and fits:
            return other.columns
    return columns


def read_file(
    task: Task, path: Path, vocabulary: Vocabulary, seq_length: int, split: SplitName = "test"
) -> tuple[Examples, Features]:
    """Any one file in the format of the task's `split`, with labels where it has them."""
    examples = read_examples(task, path, _columns(task, path, split), labelled=False)
    return examples, _encode(examples, vocabulary, seq_length)
