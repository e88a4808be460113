"""A trained model in Python: `load(folder).predict(texts)`, `.answer(question, context)`.

Legend: N examples, C outputs of the head.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import TracebackType
from typing import Any, overload

import numpy as np

from bertkit.console import Display
from bertkit.data.encoding import WordPlace, encode, encode_with_places
from bertkit.data.features import Features
from bertkit.data.tables.in_memory import rows_of
from bertkit.data.tables.table import Row
from bertkit.data.tasks.metrics import probabilities
from bertkit.data.tasks.own.base import OwnFormat
from bertkit.data.tasks.own.choices import ChoiceFormat
from bertkit.data.tasks.own.rows import THRESHOLD, RowFormat
from bertkit.data.tasks.own.tags import entities
from bertkit.data.tasks.own.templates import is_in, text_cell
from bertkit.data.tasks.task import Columns, Task
from bertkit.distributed.world import World
from bertkit.errors import UserError
from bertkit.recipes.recipe import Recipe
from bertkit.training.answering import ask, has_null
from bertkit.training.evaluation import check_finite, predict
from bertkit.training.inference import Loaded, recipe_of_run
from bertkit.training.inference import load as load_model

ANSWERED = (
    "classification",
    "multilabel",
    "regression",
    "choice",
    "tokens",
)  # kinds of which `predict` tells something
AT_ONCE = 1024  # examples that are encoded, and sorted by length, together; bounds what is in memory
TEXT, PAIR = ("text", "sentence", "first"), ("text_pair", "sentence2", "second")  # keys of dicts and columns of frames

Example = str | Sequence[str] | Mapping[str, Any]


@dataclass(frozen=True)
class TaggedSpan:
    """A stretch of the text with a label, as a name of a person."""

    text: str
    label: str
    start: int  # characters
    end: int
    probability: float  # the mean of its words'


@dataclass(frozen=True)
class Prediction:
    """What the model says of one example."""

    label: str | None  # the class or choice, the most probable one where several may apply; None for numbers
    scores: Mapping[str, float]  # each class's or choice's probability; empty for a number
    value: float | None = None  # the number; the first of several
    several: bool = False  # whether any number of labels may apply, each with a probability of its own
    values: Mapping[str, float] = field(default_factory=dict)  # several numbers by their names
    spans: tuple[TaggedSpan, ...] = ()  # of a model that labels tokens
    choice: int | None = None  # the number of the choice, from 0
    thresholds: Mapping[str, float] = field(default_factory=dict)  # of labels that were tuned; of others a half

    @property
    def labels(self) -> tuple[str, ...]:
        """The labels with a probability of at least their threshold, a half if none was tuned; most probable first."""
        found = [label for label, score in self.scores.items() if score >= self.thresholds.get(label, THRESHOLD)]
        return tuple(sorted(found, key=lambda label: -self.scores[label]))


@dataclass(frozen=True)
class Answer:
    """A span of the context."""

    text: str  # "": no answer
    probability: float  # among the best spans
    start: int  # characters of the context
    end: int
    null_odds: float | None  # how much more "no answer" scores than the best span; None where the model knows none


class Predictor:
    """A trained model on its device. Close it, or use it as a context manager, where several follow one another."""

    def __init__(self, loaded: Loaded, recipe: Recipe) -> None:
        self.loaded, self.recipe = loaded, recipe

    @property
    def task(self) -> Task:
        return self.loaded.task

    @property
    def labels(self) -> tuple[str, ...]:
        """The classes in the order of the outputs; empty where the task has none."""
        return self.task.labels

    @overload
    def predict(self, examples: str) -> Prediction: ...  # type: ignore[overload-overlap]
    @overload
    def predict(self, examples: Sequence[Example]) -> list[Prediction]: ...
    @overload
    def predict(self, examples: Iterable[Any]) -> Iterable[Prediction]: ...
    def predict(self, examples: Any) -> Any:
        """Classify or score examples, in their order.

        A text gives one Prediction. A list of texts, of pairs (tuples or lists of two texts) or of dicts, and a data
        frame (pandas, polars) give a list. An iterator gives an iterator, which takes from it piece by piece. Dicts and
        frames have the task's own columns, or `text` and `text_pair`; of multiple choice, `text` and `choices`, and an
        example is a text with the list of its choices.

        Raises UserError where an example is none of these, and where the task's answers are spans.
        """
        self.check_kind()
        if isinstance(examples, str):
            return next(iter(self._predict([examples])))
        if isinstance(examples, Iterator):
            return self._predict(examples)
        if not isinstance(examples, Iterable) or isinstance(examples, Mapping | bytes):
            raise UserError(
                f"cannot predict of {type(examples).__name__}", "give a text, a list of examples or a frame"
            )
        return list(self._predict(rows_of(examples)))

    def check_kind(self) -> None:
        """Raises UserError where the model's answers are neither labels nor numbers."""
        if self.task.head.kind not in ANSWERED:
            raise UserError(f"{self.task.name} has no classes to predict", "ask it: .answer(question, context)")

    def answer(self, question: str, context: str) -> Answer:
        """The answer to `question` by `context`, which may be long."""
        has_null(self.loaded)
        found = ask(self.loaded, self.recipe, question, context)
        if not found.best or not found.n_best:
            null = next((span.probability for span in found.n_best if not span.text), 0.0)
            return Answer(text="", probability=null, start=0, end=0, null_odds=found.null_odds)
        best = next(span for span in found.n_best if span.text == found.best)
        return Answer(
            text=best.text, probability=best.probability, start=best.start, end=best.end, null_odds=found.null_odds
        )

    def _predict(self, examples: Iterable[Any]) -> Iterator[Prediction]:
        rows = iter(examples)
        first = 0
        while part := list(itertools.islice(rows, AT_ONCE)):
            pairs = [self.texts(example, first + number) for number, example in enumerate(part)]
            yield from self.predict_texts(pairs, first)
            first += len(part)

    def predict_texts(self, examples: Sequence[tuple[str, ...]], first: int = 0) -> Iterator[Prediction]:
        """Of what `texts` gave; `first`: the number of the first, for messages."""
        texts = [example[0] for example in examples]
        seconds = [second for example in examples for second in example[1:]]
        if self.task.head.kind == "choice":
            yield from self._choose(examples, texts, seconds, first)
            return
        if self.task.head.kind == "tokens":
            yield from self._tag(texts, first)
            return
        features = encode(self.loaded.source.vocabulary, texts, seconds or None, {}, self.recipe.data.seq_length)
        for row in self._logits(features, first):
            yield _prediction(row, self.task)

    def _choose(
        self, examples: Sequence[tuple[str, ...]], texts: Sequence[str], choices: Sequence[str], first: int
    ) -> Iterator[Prediction]:
        each = self.task.head.sequences_each
        beside = [text for text in texts for _ in range(each)]
        features = encode(self.loaded.source.vocabulary, beside, choices, {}, self.recipe.data.seq_length)
        features = replace(features, each=each)
        found = probabilities("classification", self._logits(features, first))  # (N, K)
        for (_, *own), row in zip(examples, found, strict=True):
            best = int(row.argmax())
            yield Prediction(label=own[best], scores=dict(zip(own, row.tolist(), strict=True)), choice=best)

    def _tag(self, texts: Sequence[str], first: int) -> Iterator[Prediction]:
        features, places = encode_with_places(self.loaded.source.vocabulary, texts, self.recipe.data.seq_length)
        found = probabilities("classification", self._logits(features, first))  # (T, C)
        for text, words, (start, end) in zip(texts, places, itertools.pairwise(features.cu_seqlens), strict=True):
            yield Prediction(label=None, scores={}, spans=_spans(text, words, found[start:end], self.labels))

    def _logits(self, features: Features, first: int) -> np.ndarray:
        size = self.recipe.evaluation.batch_size
        outputs = predict(self.loaded.engine, self.task.head, features, size, World())
        check_finite(outputs, features, f"examples from {first} on")
        return outputs["logits"]

    def texts(self, example: Any, number: int) -> tuple[str, ...]:
        """An example as its texts: one, two, or one and its choices."""
        if isinstance(self.task.format, ChoiceFormat):
            return _with_choices(self.task.format, example, number)
        texts = self._of_columns(example, number) if isinstance(example, Mapping) else example
        texts = [texts] if isinstance(texts, str) else texts
        if not isinstance(texts, Sequence) or not all(isinstance(text, str) for text in texts) or len(texts) > 2:
            kinds = ", ".join(type(text).__name__ for text in texts[:3]) if isinstance(texts, Sequence) else ""
            shown = f"{type(example).__name__}{f' of {kinds}' if kinds else ''}"
            raise UserError(
                f"example {number} is neither a text nor a pair of texts: {shown}", "give a str, or two of them"
            )
        wants = 2 if self._columns.second is not None else 1
        if len(texts) != wants:
            what = "pairs of texts" if wants == 2 else "single texts"
            has = "one text" if len(texts) == 1 else f"{len(texts)} texts"
            raise UserError(f"example {number} has {has}, but {self.task.name} is of {what}", "give those")
        return tuple(texts)

    @property
    def _columns(self) -> Columns:
        """Where the task's own files have the texts; one text where they are no tables."""
        own = self.task.format
        if isinstance(own, OwnFormat):
            return Columns(own.columns.text, own.columns.pair)
        splits = self.task.splits.get("train") or self.task.splits.get("test") or ()
        return next((split.columns for split in splits if split.columns), Columns(TEXT[0]))

    def _of_columns(self, row: Mapping[str, Any], number: int) -> list[Any]:
        found = []
        for own, others in ((self._columns.first, TEXT), (self._columns.second, PAIR)):
            if own is None:
                continue
            names = [name for name in (own, *others) if isinstance(name, str)]  # a file without header has numbers
            name = next((name for name in names if is_in(name, row)), None)
            if name is None:
                raise UserError(f"example {number} has none of the columns {', '.join(names)}", "name one so")
            found.append(text_cell(row, name))
        return found

    def close(self) -> None:
        """Free the device; the predictor is not used afterwards."""
        self.loaded.engine.close()

    def __enter__(self) -> Predictor:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


def _with_choices(own: ChoiceFormat, example: Any, number: int) -> tuple[str, ...]:
    """The text, and its choices."""
    place = f"example {number}"
    if isinstance(example, Mapping) and all(is_in(name, example) for name in (own.columns.text, *own.choices)):
        found = own.texts(Row(place, example))
        if found is None:
            raise own.empty(Row(place, example))
        return found
    if isinstance(example, Mapping):
        example = [example.get("text"), example.get("choices")]
    texts = list(example) if isinstance(example, Sequence) and not isinstance(example, str) else []
    if len(texts) == 2 and isinstance(texts[1], Sequence) and not isinstance(texts[1], str):
        texts = [texts[0], *texts[1]]
    if not texts or not all(isinstance(each, str) for each in texts):
        raise UserError(f"{place} is no text with a list of choices", "give (text, [choice, …]), or a dict of columns")
    if len(texts) != own.count + 1:
        raise UserError(f"{place} has {len(texts) - 1} choices, but the model chooses of {own.count}", "give as many")
    return tuple(texts)


def load(
    run: str | Path,
    *,
    task: str | Task | None = None,
    force: bool = False,
    settings: Mapping[str, Any] | None = None,
    quiet: bool = True,
    **keywords: Any,
) -> Predictor:
    """The model in the folder `run` on a device: `backend=`, `precision=` and other settings as keywords.

    `task`: what it was trained on, where the folder does not say, and where that was a task of your own, the task
    itself; `force`: use it for another.
    Raises UserError where the folder holds no trained model.
    """
    recipe, own = recipe_of_run(run, task, keywords, settings)
    return Predictor(load_model(recipe, World(), Display(quiet=quiet), force, own), recipe)


def _spans(text: str, words: Sequence[WordPlace], found: np.ndarray, labels: Sequence[str]) -> tuple[TaggedSpan, ...]:
    """`found`: (T, C) probabilities of one text's tokens."""
    best = [int(found[word.token].argmax()) for word in words]
    tags = [labels[number] for number in best]
    made = []
    for entity in entities(tags):
        start, end = words[entity.first].start, words[entity.last].end
        inside = range(entity.first, entity.last + 1)
        mean = float(np.mean([found[words[place].token, best[place]] for place in inside]))
        made.append(TaggedSpan(text=text[start:end], label=entity.type, start=start, end=end, probability=mean))
    return tuple(made)


def _prediction(logits: np.ndarray, task: Task) -> Prediction:
    """`logits`: (C,)."""
    if task.head.kind == "regression":
        values = dict(zip(task.labels, map(float, logits), strict=True)) if task.labels else {}
        return Prediction(label=None, scores={}, value=float(logits[0]), values=values)
    several, own = task.head.kind == "multilabel", task.format
    temperature, thresholds = (own.temperature, own.thresholds) if isinstance(own, RowFormat) else (1.0, ())
    found = probabilities("multilabel" if several else "classification", logits[None] / temperature)[0]
    return Prediction(
        label=task.labels[int(logits.argmax())],
        scores=dict(zip(task.labels, found.tolist(), strict=True)),
        several=several,
        thresholds=dict(zip(task.labels, thresholds, strict=False)),
    )
