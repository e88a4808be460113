"""SWAG: which of four endings comes next, as its published CSV files have it.

Source: Zellers et al. 2018, arXiv:1808.05326; Devlin et al. 2018, arXiv:1810.04805, section 4.4: the first sentence is
text A, and the second's beginning with each ending text B.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from bertkit.data.features import Features
from bertkit.data.tasks.task import Answered, AnswerRules, Part, Shape, Split, SplitName, Task, Tell, how_to_get
from bertkit.errors import UserError
from bertkit.files import inputs
from bertkit.model.config import Head
from bertkit.model.vocabulary import Vocabulary

if TYPE_CHECKING:
    from bertkit.data.tasks.own.choices import ChoiceFormat

ENDINGS = ("ending0", "ending1", "ending2", "ending3")


@dataclass(frozen=True)
class SwagFormat:
    """The published files, read as a table of multiple choice."""

    @property
    def rows(self) -> ChoiceFormat:
        """How the tables are read."""
        from bertkit.data.tables.table import TableOptions  # here: each list of the tasks would import them
        from bertkit.data.tasks.own.choices import ChoiceFormat
        from bertkit.data.tasks.own.columns import TextColumns

        return ChoiceFormat(
            columns=TextColumns(text="sent1", pair="sent2", labels=("label",)),
            choices=ENDINGS,
            count=len(ENDINGS),
            naming="from 0",
            options=TableOptions(delimiter=",", header=True, encoding="utf-8"),
        )

    def find(self, task: Task, folder: Path, split: SplitName, one: Split) -> Path:
        if not inputs.exists(folder / one.file):
            raise UserError(f"{folder / one.file} is missing", how_to_get(task))
        return folder / one.file

    def shaped_by(self, shape: Shape) -> Mapping[str, int | bool | str]:
        return {"rows": shape.rows, "seq_length": shape.seq_length}

    def features(
        self, task: Task, path: Path, split: SplitName, one: Split, vocabulary: Vocabulary, shape: Shape, tell: Tell
    ) -> Features:
        return self.rows.features(task, path, split, one, vocabulary, shape, tell)

    def fitting(self, task: Task, path: Path, split: SplitName) -> Split:
        return task.splits[split][0]

    def faults(self, features: Features) -> tuple[str, ...]:
        return ()

    def examples(self, features: Features) -> int:
        return self.rows.examples(features)

    def answer(self, task: Task, part: Part, outputs: Mapping[str, np.ndarray], rules: AnswerRules) -> Answered:
        return self.rows.answer(task, part, outputs, rules)


SWAG = Task(
    name="swag",
    title="which of four endings comes next",
    folder="SWAG",
    splits={"train": (Split("train.csv"),), "dev": (Split("val.csv"),), "test": (Split("test.csv"),)},
    head=Head("choice", len(ENDINGS)),
    primary="accuracy",
    format=SwagFormat(),
)
