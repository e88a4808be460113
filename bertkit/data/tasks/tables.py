"""Reading tab-separated tables strictly: every fault is named with its file, line and cure."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from bertkit.data.tasks.task import Columns, Task
from bertkit.errors import UserError
from bertkit.files import inputs

SCORE = re.compile(r"\s*[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?\s*", re.ASCII)
Row = tuple[int, list[str]]  # line number from 1, cells


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
) -> Examples:
    """The examples of one file for whose cells `keep` holds; `rows`: only so many from its beginning (0: all).

    A file without the label's column gives examples without labels where `labelled` is False. `broken_rows`: so many
    rows that lack columns are left out.
    """
    lines = read_rows(path)
    first, second, label, width = _places(path, columns, lines, labelled)
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
            labels.append(_label(task, cells[label], path, number))
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


def _places(
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
