"""Pre-training as a task: masked words and next sentences, trained on shards and scored while it trains."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

import numpy as np

from bertkit.data.features import Features
from bertkit.data.tasks.task import Answered, AnswerRules, Part, Shape, Split, SplitName, Task, Tell
from bertkit.errors import UserError
from bertkit.model.config import Head
from bertkit.model.vocabulary import Vocabulary


@dataclass(frozen=True)
class NoExamples:
    """A Format without examples: pre-training has shards, which `bertkit.data.pretraining` reads."""

    def find(self, task: Task, folder: Path, split: SplitName, one: Split) -> Path:
        refuse(task)

    def shaped_by(self, shape: Shape) -> Mapping[str, int | bool]:
        return {}

    def features(
        self, task: Task, path: Path, split: SplitName, one: Split, vocabulary: Vocabulary, shape: Shape, tell: Tell
    ) -> Features:
        refuse(task)

    def fitting(self, task: Task, path: Path, split: SplitName) -> Split:
        refuse(task)

    def faults(self, features: Features) -> tuple[str, ...]:
        return ()

    def examples(self, features: Features) -> int:
        return len(features)

    def answer(self, task: Task, part: Part, outputs: Mapping[str, np.ndarray], rules: AnswerRules) -> Answered:
        refuse(task)


def refuse(task: Task) -> NoReturn:
    raise UserError(
        f"{task.name} makes no predictions: it is evaluated in training, and record.json has its scores",
        "fine-tune the run's folder first: bertkit train -m RUN -t mrpc",
    )


PRETRAIN = Task(
    "pretrain", "masked words, next sentences", "", {}, Head("pretraining", 2), "mlm_accuracy", NoExamples()
)
