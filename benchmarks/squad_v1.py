"""SQuAD v1.1 without bertkit: reading a file, spans out of logits, and the official scores.

An independent second writing, so that a peer's number does not pass through bertkit's own code.

Legend: W windows of one question, L tokens of a window.
"""

from __future__ import annotations

import collections
import json
import re
import string
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np


@dataclass(frozen=True)
class Question:
    id: str
    question: str
    context: str
    answers: tuple[tuple[int, str], ...]  # (character where it starts, its text)


@dataclass(frozen=True)
class Window:
    """What decoding needs of one window; `offsets` is None outside the context."""

    offsets: Sequence[tuple[int, int] | None]  # L pairs of characters in the context
    start_logits: np.ndarray  # (L,)
    end_logits: np.ndarray  # (L,)


def read(path: Path, rows: int = 0) -> list[Question]:
    """The file's first `rows` questions in order (0: all)."""
    questions = []
    for article in json.loads(path.read_text(encoding="utf-8"))["data"]:
        for paragraph in article["paragraphs"]:
            for entry in paragraph["qas"]:
                answers = tuple((answer["answer_start"], answer["text"]) for answer in entry["answers"])
                questions.append(Question(entry["id"], entry["question"], paragraph["context"], answers))
    return questions[: rows or None]


def best_text(context: str, windows: Sequence[Window], n_best: int = 20, longest: int = 30) -> str:
    """The span with the highest sum of its two logits over all windows, of at most `longest` word pieces.

    As transformers' run_qa: the `n_best` starts times the `n_best` ends, no rule of the "maximal context".
    """
    best, text = -np.inf, ""
    for window in windows:
        ends = np.argsort(-window.end_logits, kind="stable")[:n_best]
        for start in np.argsort(-window.start_logits, kind="stable")[:n_best]:
            for end in ends:
                first, last = window.offsets[start], window.offsets[end]
                if first is None or last is None or not start <= end < start + longest:
                    continue
                score = float(window.start_logits[start]) + float(window.end_logits[end])
                if score > best:
                    best, text = score, context[first[0] : last[1]]
    return text


def normalise(text: str) -> str:
    """Lower case, no punctuation, no articles, single blanks: the official script's order."""
    kept = "".join(letter for letter in text.lower() if letter not in set(string.punctuation))
    return " ".join(re.sub(r"\b(a|an|the)\b", " ", kept).split())


def exact(prediction: str, truth: str) -> float:
    return float(normalise(prediction) == normalise(truth))


def f1(prediction: str, truth: str) -> float:
    """Harmonic mean of precision and recall over the bags of words."""
    predicted, true = normalise(prediction).split(), normalise(truth).split()
    same = sum((collections.Counter(predicted) & collections.Counter(true)).values())
    if not same:
        return 0.0
    precision, recall = same / len(predicted), same / len(true)
    return 2 * precision * recall / (precision + recall)


def scores(questions: Sequence[Question], predictions: Mapping[str, str]) -> dict[str, float]:
    """Percentages over all questions; the best over a question's answers; an unanswered question counts 0."""
    sums = {"exact_match": 0.0, "f1": 0.0}
    for question in questions:
        if question.id not in predictions:
            continue
        for name, measure in (("exact_match", exact), ("f1", f1)):
            sums[name] += max(measure(predictions[question.id], truth) for _, truth in question.answers)
    return {name: 100 * value / len(questions) for name, value in sums.items()}
