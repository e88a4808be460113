"""Texts on their way through a trained model, in steps, so that what several ask can be computed together.

Texts become features; those of several are one batch; of its own outputs each makes its answers.

Legend: N examples, T tokens, C outputs of the head, K choices.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Generic, TypeVar

import numpy as np

from bertkit.data.encoding import WordPlace, encode, encode_with_places
from bertkit.data.features import Features
from bertkit.data.tasks.metrics import probabilities
from bertkit.data.tasks.own.rows import THRESHOLD, RowFormat
from bertkit.data.tasks.own.tags import entities
from bertkit.data.tasks.task import Task
from bertkit.engine.interface import Arrays
from bertkit.model.vocabulary import Vocabulary

if TYPE_CHECKING:
    from tokenizers import Tokenizer

Said = TypeVar("Said")


@dataclass(frozen=True)
class Prepared(Generic[Said]):
    """What is asked of a model, as its engine takes it, and what makes an answer of the outputs."""

    features: Features
    finish: Callable[[Arrays], Said]  # of what `Engine.predict` names, for these features alone


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


def prepare_texts(
    task: Task, vocabulary: Vocabulary, made: Tokenizer, examples: Sequence[tuple[str, ...]], seq_length: int
) -> Prepared[list[Prediction]]:
    """N examples: one text, two, or one and its K choices, as the task has it. `made`: the vocabulary's tokenizer."""
    texts = [example[0] for example in examples]
    if task.head.kind == "tokens":
        return _tags(task, vocabulary, made, texts, seq_length)
    if task.head.kind == "choice":
        return _choices(task, vocabulary, made, examples, seq_length)
    seconds = [second for example in examples for second in example[1:]]
    features = encode(vocabulary, texts, seconds or None, {}, seq_length, made=made)
    return Prepared(features, lambda outputs: [_prediction(row, task) for row in outputs["logits"]])


def _choices(
    task: Task, vocabulary: Vocabulary, made: Tokenizer, examples: Sequence[tuple[str, ...]], seq_length: int
) -> Prepared[list[Prediction]]:
    each = task.head.sequences_each
    beside = [text for text, *_ in examples for _ in range(each)]
    choices = [choice for _, *own in examples for choice in own]
    features = replace(encode(vocabulary, beside, choices, {}, seq_length, made=made), each=each)

    def finish(outputs: Arrays) -> list[Prediction]:
        found = probabilities("classification", outputs["logits"].reshape(-1, each))  # (N, K)
        return [_choice(own, row) for (_, *own), row in zip(examples, found, strict=True)]

    return Prepared(features, finish)


def _choice(own: Sequence[str], row: np.ndarray) -> Prediction:
    best = int(row.argmax())
    return Prediction(label=own[best], scores=dict(zip(own, row.tolist(), strict=True)), choice=best)


def _tags(
    task: Task, vocabulary: Vocabulary, made: Tokenizer, texts: Sequence[str], seq_length: int
) -> Prepared[list[Prediction]]:
    features, places = encode_with_places(vocabulary, texts, seq_length, made)

    def finish(outputs: Arrays) -> list[Prediction]:
        found = probabilities("classification", outputs["logits"])  # (T, C)
        bounds = itertools.pairwise(features.cu_seqlens)
        return [
            Prediction(label=None, scores={}, spans=_spans(text, words, found[start:end], task.labels))
            for text, words, (start, end) in zip(texts, places, bounds, strict=True)
        ]

    return Prepared(features, finish)


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


# ---- what several ask, computed together ----


def joined(parts: Sequence[Features]) -> dict[str, np.ndarray]:
    """The ragged batch of all the parts' sequences, as engines take it."""
    lengths = np.concatenate([part.lengths for part in parts])
    return {
        "input_ids": np.concatenate([part.input_ids for part in parts]),
        "token_type_ids": np.concatenate([part.token_type_ids for part in parts]),
        "cu_seqlens": np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32),
        "example_ids": np.arange(sum(map(len, parts)), dtype=np.int64),
    }


def divided(outputs: Arrays, parts: Sequence[Features], of_tokens: bool) -> list[Arrays]:
    """Each part's own of the outputs for all. `of_tokens`: there is a row for each token, not for each sequence."""
    sizes = [len(part.input_ids) if of_tokens else len(part.lengths) for part in parts]
    bounds = list(itertools.pairwise(itertools.accumulate(sizes, initial=0)))
    return [{name: values[start:end] for name, values in outputs.items()} for start, end in bounds]


def together(parts: Sequence[Prepared[Said]]) -> Prepared[list[Said]]:
    """Several that are asked of a model whose outputs are of tokens, as one."""
    features = [part.features for part in parts]
    batch = joined(features)
    starts = batch["cu_seqlens"].astype(np.int64)

    def finish(outputs: Arrays) -> list[Said]:
        each = divided(outputs, features, of_tokens=True)
        return [part.finish(own) for part, own in zip(parts, each, strict=True)]

    return Prepared(Features(batch["input_ids"], batch["token_type_ids"], starts, {}), finish)
