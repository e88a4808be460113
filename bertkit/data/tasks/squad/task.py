"""SQuAD 1.1 and 2.0 as tasks: answers are spans of a paragraph."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from bertkit.data.features import Features
from bertkit.data.tasks.squad.decoding import Found, as_json, decode
from bertkit.data.tasks.squad.metrics import THRESHOLD, score_squad
from bertkit.data.tasks.squad.reader import read_squad
from bertkit.data.tasks.squad.windows import encode_squad
from bertkit.data.tasks.task import Answered, AnswerRules, Part, Shape, Split, SplitName, Task, Tell
from bertkit.errors import UserError
from bertkit.files import inputs
from bertkit.files.disk import write_json
from bertkit.model.config import Head
from bertkit.model.vocabulary import Vocabulary


@dataclass(frozen=True)
class SquadFormat:
    """SQuAD's JSON, its official metrics, and the three files of answers that its scripts read."""

    version2: bool  # some questions have no answer

    def find(self, task: Task, folder: Path, split: SplitName, one: Split) -> Path:
        path = folder / one.file
        if not inputs.exists(path):
            cure = f"`bertkit data get {task.name}` fetches it; data.{split}_file names a file of your own"
            raise UserError(f"{path} is missing", cure)
        return path

    def shaped_by(self, shape: Shape) -> Mapping[str, int | bool]:
        return {
            "rows": shape.rows,
            "seq_length": shape.seq_length,
            "doc_stride": shape.doc_stride,
            "query_length": shape.query_length,
            "strict": shape.strict,
        }

    def features(
        self, task: Task, path: Path, split: SplitName, one: Split, vocabulary: Vocabulary, shape: Shape, tell: Tell
    ) -> Features:
        paragraphs = read_squad(path, shape.rows)
        return encode_squad(paragraphs, vocabulary, shape, split == "train", str(path), tell, shape.rows)

    def faults(self, features: Features) -> tuple[str, ...]:
        count = int(features.notes["misplaced"][0])
        said = f"{count:,} questions are skipped in training: their answers are not where the file says (--strict)"
        return (said,) if count else ()

    def examples(self, features: Features) -> int:
        return int(features.notes["questions"][0])

    def fitting(self, task: Task, path: Path, split: SplitName) -> Split:
        return task.splits["dev"][0]

    def answer(self, task: Task, part: Part, outputs: Mapping[str, np.ndarray], rules: AnswerRules) -> Answered:
        paragraphs = list(read_squad(part.file, part.rows))
        found = decode(paragraphs, part.features, outputs, rules, self.version2)
        metrics: dict[str, float] = {}
        asked = [question for one in paragraphs for question in one.questions]
        told = all(question.answers or question.impossible for question in asked)
        if told and (self.version2 or any(question.answers for question in asked)):
            said = {one.id: one.best for one in found}
            odds = {one.id: one.null_odds for one in found if one.null_odds is not None} if self.version2 else None
            metrics = dict(
                score_squad(paragraphs, said, odds, self.version2, max(THRESHOLD, rules.null_threshold)).metrics
            )
        return Answered(metrics, functools.partial(write, found))


def write(found: list[Found], folder: Path, infix: str) -> Path:
    """predictions.json, nbest_predictions.json and, where there are null answers, null_odds.json."""
    path = folder / f"predictions{infix}.json"
    write_json(path, {one.id: one.best for one in found})
    write_json(folder / f"nbest_predictions{infix}.json", {one.id: as_json(one) for one in found})
    if any(one.null_odds is not None for one in found):
        write_json(folder / f"null_odds{infix}.json", {one.id: one.null_odds for one in found})
    return path


def _splits(version: str) -> Mapping[SplitName, tuple[Split, ...]]:
    train, dev = Split(f"train-{version}.json"), Split(f"dev-{version}.json")
    return {"train": (train,), "dev": (dev,), "test": (dev,)}


SQUAD: tuple[Task, ...] = (
    Task(
        "squad", "questions about paragraphs, v1.1", "squad", _splits("v1.1"),
        Head("span", 2), "f1", SquadFormat(version2=False), recipe="squad", models_of=("squad2",),
    ),
    Task(
        "squad2", "questions about paragraphs, some without an answer, v2.0", "squad", _splits("v2.0"),
        Head("span", 2), "f1", SquadFormat(version2=True), recipe="squad",
    ),
)  # fmt: skip
