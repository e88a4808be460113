"""Unlabelled texts beside a training set, for a student that learns from a teacher: the transfer set.

Legend: N examples, T tokens.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import numpy as np

from bertkit.data.encoding import encode
from bertkit.data.features import Features, joined
from bertkit.data.tasks.reading import Progress, own_file, read_part
from bertkit.data.tasks.task import Part, Shape, Task
from bertkit.engine.interface import NO_LABEL, OF_TOKENS
from bertkit.errors import UserError
from bertkit.files.inputs import DATA_BYTES, read_text
from bertkit.model.vocabulary import Vocabulary
from bertkit.recipes.sections import DistillSection

LINES = ".txt"
Say = Callable[[str], object]


def with_transfer(
    train: Part,
    section: DistillSection,
    task: Task,
    vocabulary: Vocabulary,
    shape: Shape,
    cache: Path | None,
    tell: Progress,
    say: Say,
) -> Part:
    """The training set with the texts of `distill.transfer` behind it, without labels."""
    if not section.teacher:
        raise UserError("distill.transfer has no labels, and no teacher is named", "set distill.teacher")
    path = own_file(section.transfer, folder_too=True)
    if path.suffix == LINES:
        features = _lines(path, task, vocabulary, shape, tell)
    else:
        one = task.format.fitting(task, path, "test")
        features = read_part(task, path, "test", one, vocabulary, shape, cache, tell).features
    say(f"transfer: {path}, {len(features):,} rows without labels, beside {len(train.features):,} of {train.file}")
    return dataclasses.replace(train, features=joined([train.features, unlabelled(features, train.features)]))


def _lines(path: Path, task: Task, vocabulary: Vocabulary, shape: Shape, tell: Progress) -> Features:
    """A text of each line that is not empty. Raises UserError where the task is not of single texts."""
    if task.head.kind not in ("classification", "multilabel", "regression"):
        raise UserError(f"{path}: lines of text are no rows of {task.name}", "give a file as its test set is")
    lines = [line.strip() for line in read_text(path, most=DATA_BYTES).splitlines() if line.strip()]
    if not lines:
        raise UserError(f"{path} holds no text", "give a text in each line")
    return encode(vocabulary, lines, None, {}, shape.seq_length, lambda done: tell("encoding", done, len(lines)))


def unlabelled(features: Features, like: Features) -> Features:
    """With labels that say there is none, named and shaped as those of `like`."""
    labels = {}
    for name, values in like.labels.items():
        rows = len(features.input_ids) if name in OF_TOKENS else len(features)
        fill = 0 if values.dtype.kind == "f" or name.endswith("_positions") else NO_LABEL
        labels[name] = np.full((rows, *values.shape[1:]), fill, values.dtype)
    return dataclasses.replace(features, labels=labels, notes={})
