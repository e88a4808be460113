"""XNLI: MNLI's question in 15 languages, in tables whose rows say their language.

Source: Conneau et al. 2018, arXiv:1809.05053. A model that was trained on MNLI, or on MNLI's training set translated by
machine (XNLI-MT), is scored in each language; `accuracy` is the mean over languages.

Legend: N examples, C outputs of the head.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from bertkit.data.encoding import encode
from bertkit.data.features import Features
from bertkit.data.tasks.metrics import Metrics, accuracy
from bertkit.data.tasks.tabular import Examples, Splits, TableFormat, read_examples, read_rows
from bertkit.data.tasks.task import Answered, AnswerRules, Columns, Part, Shape, Split, SplitName, Task, Tell
from bertkit.model.config import Head
from bertkit.model.vocabulary import Vocabulary

LABELS = ("contradiction", "entailment", "neutral")  # in the order of MNLI, whose models answer XNLI
LANGUAGES = ("ar", "bg", "de", "el", "en", "es", "fr", "hi", "ru", "sw", "th", "tr", "ur", "vi", "zh")
TABLE = Columns("sentence1", "sentence2", "gold_label")  # of XNLI's own files
TRANSLATED = Columns("premise", "hypo", "label")  # of XNLI-MT's training files
LANGUAGE = "language"  # the column; a table without it is read whole
RENAMED = {"contradictory": "contradiction"}  # in the latter


@dataclass(frozen=True)
class XnliFormat(TableFormat):
    """Tables of several languages, of which those that are asked for are read."""

    languages: tuple[str, ...] = LANGUAGES

    def features(
        self, task: Task, path: Path, split: SplitName, one: Split, vocabulary: Vocabulary, shape: Shape, tell: Tell
    ) -> Features:
        found, numbers = self._read(task, path, one.columns or TABLE, shape.rows)
        labels = {} if found.labels is None else {"labels": found.labels}
        notes = {"skipped": np.array([found.skipped]), "languages": np.array(numbers, np.int64)}
        total = len(found.first)
        return encode(
            vocabulary, found.first, found.second, labels, shape.seq_length, lambda done: tell(done, total), notes
        )

    def examples_of(self, task: Task, path: Path, split: SplitName, one: Split, rows: int = 0) -> Examples:
        return self._read(task, path, one.columns or TABLE, rows)[0]

    def gold(self, task: Task, path: Path, columns: Columns) -> np.ndarray | None:
        return self._read(task, path, columns, 0)[0].labels

    def _read(self, task: Task, path: Path, columns: Columns, rows: int) -> tuple[Examples, list[int]]:
        """(the examples, the number in LANGUAGES of each one's language; none where the file does not tell)."""
        if columns.first == TRANSLATED.first:
            return read_examples(task, path, columns, rows, renamed=RENAMED), []
        header = next(read_rows(path))[1]
        if LANGUAGE not in header:  # a file of the user's own, in one language
            return read_examples(task, path, columns, rows, labelled=False), []
        numbers: list[int] = []
        keep = functools.partial(_keep, header.index(LANGUAGE), self.languages, numbers)
        return read_examples(task, path, columns, rows, labelled=False, keep=keep), numbers

    def answer(self, task: Task, part: Part, outputs: Mapping[str, np.ndarray], rules: AnswerRules) -> Answered:
        answered = super().answer(task, part, outputs, rules)
        numbers = part.features.notes["languages"]
        if not answered.metrics or not len(numbers):
            return answered
        return replace(answered, metrics=by_language(outputs["logits"], part.features.labels["labels"], numbers))


def by_language(logits: np.ndarray, labels: np.ndarray, languages: np.ndarray) -> Metrics:
    """(N, C), (N,), (N,) numbers in LANGUAGES -> accuracy in each language that occurs, where several do, and the mean
    of these."""
    each = {
        LANGUAGES[number]: accuracy(logits[languages == number], labels[languages == number])["accuracy"]
        for number in np.unique(languages).tolist()
    }
    mean = {"accuracy": float(np.mean(list(each.values())))}
    return mean if len(each) == 1 else mean | {f"accuracy_{name}": value for name, value in each.items()}


def _keep(place: int, languages: tuple[str, ...], numbers: list[int], cells: list[str]) -> bool:
    """Whether the row is in one of the languages, whose number is then noted."""
    if cells[place] not in languages:
        return False
    numbers.append(LANGUAGES.index(cells[place]))
    return True


def _task(name: str, title: str, languages: tuple[str, ...], train: Splits, sources: tuple[str, ...]) -> Task:
    own: Callable[[np.ndarray, np.ndarray], Metrics] = accuracy
    return Task(
        name=name,
        title=title,
        folder="XNLI",
        splits={**train, "dev": (Split("xnli.dev.tsv", TABLE),), "test": (Split("xnli.test.tsv", TABLE),)},
        head=Head("classification", len(LABELS)),
        primary="accuracy",
        format=XnliFormat(own, {"": f"{name.upper()}.tsv"}, languages=languages),
        labels=LABELS,
        parts_of="" if train else "mnli",
        models_of=("mnli", *(f"xnli-{language}" for language in LANGUAGES)),
        sources=sources,
    )


def _of_language(language: str) -> Task:
    train: Splits = {"train": (Split(f"multinli.train.{language}.tsv", TRANSLATED),)}
    title = f"entailment in {language}, trained on its machine translation"
    return _task(f"xnli-{language}", title, (language,), train, ("xnli", "xnli-mt"))


XNLI: tuple[Task, ...] = (
    _task("xnli", "entailment in 15 languages, for an MNLI model", LANGUAGES, {}, ()),
    *map(_of_language, LANGUAGES),
)
