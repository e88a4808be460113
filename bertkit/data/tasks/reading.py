"""From a task and a data folder to features, kept for the next run."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path

from bertkit.data.features import Features, cache_key, cached
from bertkit.data.tables.hub_tables import table_path
from bertkit.data.tables.opening import digest_of, is_pattern, matching
from bertkit.data.tasks.own.base import OwnFormat
from bertkit.data.tasks.task import Part, Shape, Split, SplitName, Task, split_files, task_folder
from bertkit.errors import UserError
from bertkit.files import inputs
from bertkit.model.vocabulary import LONGEST_WORD, Vocabulary

Progress = Callable[[str, int, int], object]  # (what, done, of how many)


def read_split(
    task: Task,
    data_dir: Path,
    split: SplitName,
    vocabulary: Vocabulary,
    shape: Shape,
    cache: Path | None = None,
    progress: Progress = lambda what, done, of: None,
    file: str = "",
) -> list[Part]:
    """Every file of the split as features; `file` takes the place of the task's own."""
    if file:
        one = split_files(task, split)[0]
        path = own_file(file, isinstance(task.format, OwnFormat), split)
        return [read_part(task, path, split, one, vocabulary, shape, cache, progress)]
    folder = task_folder(task, data_dir)
    return [
        read_part(task, task.format.find(task, folder, split, one), split, one, vocabulary, shape, cache, progress)
        for one in split_files(task, split)
    ]


def read_part(
    task: Task,
    path: Path,
    split: SplitName,
    one: Split,
    vocabulary: Vocabulary,
    shape: Shape,
    cache: Path | None = None,
    progress: Progress = lambda what, done, of: None,
) -> Part:
    """One file as features, from the cache where nothing that shapes them has changed."""
    own = task.format if isinstance(task.format, OwnFormat) else None
    if own is None:  # else it may be a folder, and is not read whole
        inputs.check_file(path, "check --data-dir", inputs.DATA_BYTES)
    digest = digest_of(path)
    name = f"{split}{one.part}"
    key = cache_key(
        task=task.name,
        task_version=task.version,
        split=name,
        text=digest,
        vocabulary=vocabulary.digest,
        lower_case=vocabulary.lower_case,
        longest_word=LONGEST_WORD,
        read_as=repr((task.format.__class__.__qualname__, one.columns, task.labels)),  # two tasks may share a name
        **task.format.shaped_by(shape),
    )
    tell = functools.partial(progress, f"encoding {task.name} {name}")

    def build() -> Features:
        return task.format.features(task, path, split, one, vocabulary, shape, tell)

    features = cached(cache, f"{task.name}-{name}", key, build)
    said = task.format
    return Part(
        name=one.part,
        file=path,
        sha256=digest,
        features=features,
        examples=said.examples(features),
        faults=said.faults(features),
        rows=shape.rows,
        held_out=own.held_out.described(own.stratified) if own and own.held_out and split == "dev" else "",
    )


def own_file(name: str, folder_too: bool = False, split: SplitName = "test") -> Path:
    """The path of a file that the user named; `folder_too`: or of a folder, a pattern of several files, or a
    table of the model hub, where `split` may choose.

    Raises UserError where it is none.
    """
    cure = "name a file of the task's format"
    try:
        path = table_path(name, split) if folder_too else Path(name).expanduser()
    except RuntimeError:  # a user that there is not
        raise UserError(f"{name}: there is no such home folder", cure) from None
    if folder_too and is_pattern(path):
        matching(path)
    elif not inputs.is_file(path) and not (folder_too and inputs.is_folder(path)):
        raise UserError(f"{path} is {_instead(path)}", cure)
    return path


def _instead(path: Path) -> str:
    if not inputs.exists(path):
        return "missing"
    return "a folder" if inputs.is_folder(path) else "no regular file"
