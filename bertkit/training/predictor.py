"""A trained model in Python: `load(folder).predict(texts)`, `.answer(question, context)`.

Legend: N examples, C outputs of the head.
"""

from __future__ import annotations

import contextlib
import itertools
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, overload

import numpy as np

from bertkit.console import Display
from bertkit.data.features import Features
from bertkit.data.tables.in_memory import rows_of
from bertkit.data.tables.table import Row
from bertkit.data.tasks.own.base import OwnFormat
from bertkit.data.tasks.own.choices import ChoiceFormat
from bertkit.data.tasks.own.templates import is_in, text_cell
from bertkit.data.tasks.squad.decoding import Found
from bertkit.data.tasks.swag import SwagFormat
from bertkit.data.tasks.task import Columns, Format, Task
from bertkit.distributed.world import World
from bertkit.engine.interface import Arrays
from bertkit.errors import UserError
from bertkit.model.config import PER_TOKEN
from bertkit.model.tokenizer import tokenizer
from bertkit.recipes.recipe import Recipe
from bertkit.training.answering import ask, has_null, prepare_question
from bertkit.training.evaluation import check_finite, predict
from bertkit.training.inference import Loaded, recipe_of_run
from bertkit.training.inference import load as load_model
from bertkit.training.preparing import Prediction, Prepared, divided, joined, prepare_texts, together

if TYPE_CHECKING:
    from tokenizers import Tokenizer

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
        self._tokenizers: deque[Tokenizer] = deque()  # that no thread uses now

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
        with self._tokenizer() as made:
            return _answer(ask(self.loaded, self.recipe, question, context, made))

    def _predict(self, examples: Iterable[Any]) -> Iterator[Prediction]:
        rows = iter(examples)
        first = 0
        while part := list(itertools.islice(rows, AT_ONCE)):
            pairs = [self.texts(example, first + number) for number, example in enumerate(part)]
            yield from self.predict_texts(pairs, first)
            first += len(part)

    def predict_texts(self, examples: Sequence[tuple[str, ...]], first: int = 0) -> Iterator[Prediction]:
        """Of what `texts` gave; `first`: the number of the first, for messages."""
        prepared = self.prepare(examples)
        size = self.recipe.evaluation.batch_size
        outputs = predict(self.loaded.engine, self.task.head, prepared.features, size, World())
        check_finite(outputs, prepared.features, f"examples from {first} on")
        yield from prepared.finish(outputs)

    def prepare(self, examples: Sequence[tuple[str, ...]]) -> Prepared[list[Prediction]]:
        """What `texts` gave, up to the engine. Several threads may prepare at once."""
        vocabulary, length = self.loaded.source.vocabulary, self.recipe.data.seq_length
        with self._tokenizer() as made:
            return prepare_texts(self.task, vocabulary, made, examples, length)

    def prepare_questions(self, asked: Sequence[tuple[str, str]]) -> Prepared[list[Answer]]:
        """As `prepare`, of questions, each with the text that it is about, at least one."""
        with self._tokenizer() as made:
            found = together(
                [prepare_question(self.loaded, self.recipe, *each, made, "the question") for each in asked]
            )
        return Prepared(found.features, lambda outputs: [_answer(one) for one in found.finish(outputs)])

    def sequences(self, input_ids: Sequence[np.ndarray], token_type_ids: Sequence[np.ndarray]) -> Features:
        """Features of token ids, an array of each sequence: K sequences an example where the task is a choice of K.

        Raises UserError where a sequence is empty or longer than the model takes, or an id is none of its.
        """
        config, longest, each = self.loaded.source.config, self.recipe.data.seq_length, self.task.head.sequences_each
        lengths = np.array([len(ids) for ids in input_ids], np.int64)
        if len(lengths) and not 1 <= lengths.min() <= lengths.max() <= longest:
            number = int(((lengths < 1) | (lengths > longest)).argmax())
            raise UserError(
                f"sequence {number} has {lengths[number]:,} tokens, but the model takes 1 to {longest:,}",
                "cut it, or raise data.seq_length",
            )
        ids = _checked("input_ids", input_ids, config.vocab_size)
        types = _checked("token_type_ids", token_type_ids, config.type_vocab_size)
        return Features(ids, types, np.concatenate([[0], np.cumsum(lengths)]), {}, each=each)

    def compute(self, parts: Sequence[Features]) -> list[Arrays | UserError]:
        """The head's outputs for each part, all computed in one batch; an error of its own where they are not finite.

        As `Engine.predict` names them: logits (N, C), of choices (N * K, 1), of tokens (T, C); start_logits and
        end_logits (T,).
        """
        outputs = self.loaded.engine.predict(joined(parts))
        found: list[Arrays | UserError] = []
        for part, own in zip(parts, divided(outputs, parts, self.task.head.kind in PER_TOKEN), strict=True):
            try:
                shaped = {name: values.reshape(len(part), -1) for name, values in own.items()} if part.each > 1 else own
                check_finite(shaped, part, "the request")
                found.append(own)
            except UserError as error:
                found.append(error)
        return found

    def keep_tokenizers(self, count: int) -> None:
        """Make as many as threads will prepare at once; each takes a tenth of a second."""
        while len(self._tokenizers) < count:
            self._tokenizers.append(tokenizer(self.loaded.source.vocabulary))

    @contextlib.contextmanager
    def _tokenizer(self) -> Iterator[Tokenizer]:
        """One that no other thread uses meanwhile, since how it truncates is a state of its own."""
        try:
            made = self._tokenizers.pop()
        except IndexError:
            made = tokenizer(self.loaded.source.vocabulary)
        made.no_truncation()
        try:
            yield made
        finally:
            self._tokenizers.append(made)

    @property
    def fields(self) -> tuple[str, ...]:
        """What an example consists of: text, text_pair, choices; of questions question and context."""
        if self.task.head.kind == "span":
            return "question", "context"
        if self.task.head.kind == "choice":
            return "text", "choices"
        return ("text",) if self._columns.second is None else ("text", "text_pair")

    def texts(self, example: Any, number: int) -> tuple[str, ...]:
        """An example as its texts: one, two, or one and its choices."""
        if rows := _choice_rows(self.task.format):
            return _with_choices(rows, example, number)
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


def _choice_rows(own: Format) -> ChoiceFormat | None:
    """How a row's text and choices are read; None: the task has no choices."""
    own = own.rows if isinstance(own, SwagFormat) else own
    return own if isinstance(own, ChoiceFormat) else None


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


def _checked(what: str, rows: Sequence[np.ndarray], most: int) -> np.ndarray:
    """(T,) int32, all below `most`."""
    flat = np.concatenate([np.empty(0, np.int64), *rows])
    if len(flat) and not 0 <= flat.min() <= flat.max() < most:
        raise UserError(f"{what} holds a number that is none of the model's", f"send 0 to {most - 1:,}")
    return flat.astype(np.int32)


def _answer(found: Found) -> Answer:
    if not found.best or not found.n_best:
        null = next((span.probability for span in found.n_best if not span.text), 0.0)
        return Answer(text="", probability=null, start=0, end=0, null_odds=found.null_odds)
    best = next(span for span in found.n_best if span.text == found.best)
    return Answer(
        text=best.text, probability=best.probability, start=best.start, end=best.end, null_odds=found.null_odds
    )
