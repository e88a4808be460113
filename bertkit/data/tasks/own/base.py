"""What the formats of users' tables have in common."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from bertkit.data.features import Features
from bertkit.data.tables.table import BY_THE_FILE, DataTable, TableOptions
from bertkit.data.tasks.own.columns import TextColumns
from bertkit.data.tasks.own.held_out import HeldOut
from bertkit.data.tasks.task import Shape, Split, SplitName, Task
from bertkit.errors import UserError


@dataclass(frozen=True, kw_only=True)
class OwnData:
    """What the user says of the data; what is empty is told by the training file."""

    kind: str = ""
    text: str = ""
    pair: str = ""
    choices: str = ""
    label: str = ""
    separator: str = ""
    skip_empty: bool = False
    options: TableOptions = BY_THE_FILE
    held_out: HeldOut | None = None
    metric: str = ""


@dataclass(frozen=True, kw_only=True)
class OwnFormat:
    """Tables with the columns and labels that were found, or said, at the training's beginning."""

    columns: TextColumns
    skip_empty: bool = False
    options: TableOptions = BY_THE_FILE
    held_out: HeldOut | None = None  # None: the dev set is a file of its own

    @property
    def stratified(self) -> bool:
        """Whether of each label the same share is held out."""
        return False

    @property
    def answers_rows(self) -> bool:
        """Whether a row of texts has one answer, so that rows can be answered as they come."""
        return False

    def texts_in(self, table: DataTable) -> Iterator[tuple[str, ...]]:
        """Each row's texts as its sequences are made of them, where `answers_rows`.

        Raises UserError for a row that lacks one.
        """
        raise NotImplementedError

    def find(self, task: Task, folder: Path, split: SplitName, one: Split) -> Path:
        raise UserError(f"task {task.name} has no files of its own", "name one with --train, --dev or --file")

    def shaped_by(self, shape: Shape) -> Mapping[str, int | bool | str]:
        return {"rows": shape.rows, "seq_length": shape.seq_length, "own": json.dumps(dataclasses.asdict(self))}

    def fitting(self, task: Task, path: Path, split: SplitName) -> Split:
        return Split(path.name)

    def faults(self, features: Features) -> tuple[str, ...]:
        skipped = int(features.notes["skipped"][0])
        return (f"{skipped:,} rows with an empty text or label are left out (table.empty=skip)",) if skipped else ()

    def examples(self, features: Features) -> int:
        return len(features)
