"""Questions and paragraphs as sequences: [CLS] question [SEP] a window of the paragraph [SEP].

A paragraph that is too long for one sequence is covered by windows that start `doc_stride` pieces apart. A piece that
stands in several windows has its maximum context in the one where the smaller of its distances to the window's two
ends is largest; only there may an answer start.

Legend: N windows, T tokens of them, P pieces of a paragraph, Q questions.
Source: Devlin et al. 2018, arXiv:1810.04805, section 4.2, and its published code's definition of windows.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import TYPE_CHECKING

import numpy as np

from bertkit.data.features import Features
from bertkit.data.tasks.squad.reader import Paragraph, Question
from bertkit.data.tasks.task import Shape, Tell
from bertkit.errors import UserError
from bertkit.model.long_texts import LONG, batches, encode_long, of_encoding
from bertkit.model.tokenizer import tokenizer
from bertkit.model.vocabulary import Vocabulary

if TYPE_CHECKING:
    from tokenizers import Tokenizer

AT_ONCE = 128  # paragraphs encoded together: bounds the memory, keeps all cores busy
OUTSIDE = -1  # character offset of a token that is no piece of the paragraph


@dataclass(frozen=True)
class TextPieces:
    """A text in word pieces."""

    ids: np.ndarray  # (P,) int32
    starts: np.ndarray  # (P,) int32: the character where each piece starts
    ends: np.ndarray  # (P,) int32: the character behind its last


@dataclass
class Collected:
    """Windows as they are made."""

    ids: list[np.ndarray] = field(default_factory=list)
    types: list[np.ndarray] = field(default_factory=list)
    starts: list[np.ndarray] = field(default_factory=list)
    ends: list[np.ndarray] = field(default_factory=list)
    max_context: list[np.ndarray] = field(default_factory=list)
    questions: list[int] = field(default_factory=list)
    first: list[int] = field(default_factory=list)  # the answer's first and last token, 0 where it is not there
    last: list[int] = field(default_factory=list)


def encode_squad(
    paragraphs: Iterable[Paragraph],
    vocabulary: Vocabulary,
    shape: Shape,
    learn: bool,
    where: str = "",
    tell: Tell = lambda done, of: None,
    total: int = 0,
    made: Tokenizer | None = None,
) -> Features:
    """The paragraphs' questions as features. `made`: as in `encode`, and does not truncate.

    `learn`: with the labels start_positions and end_positions (N,), both 0 where the window lacks the answer;
    a question whose answer does not stand in its paragraph is left out and counted in the note `misplaced`.
    Else with the notes that answering needs: start, end (T,) character offsets in the paragraph, max_context (T,),
    question (N,) the number of the window's question.

    Raises UserError where a sequence has no room beside a question, a question to learn from has no answer, or,
    with `shape.strict`, an answer is misplaced.
    """
    made = made or tokenizer(vocabulary)
    special = vocabulary.special_ids
    found, number, misplaced = Collected(), 0, 0
    iterator = iter(paragraphs)
    while batch := list(islice(iterator, AT_ONCE)):
        contexts = encode_pieces(made, [paragraph.context for paragraph in batch])
        asked = [question for paragraph in batch for question in paragraph.questions]
        queries = iter(made.encode_batch_fast([question.text for question in asked], add_special_tokens=False))
        for paragraph, pieces in zip(batch, contexts, strict=True):
            for question in paragraph.questions:
                query = np.array(next(queries).ids[: shape.query_length], np.int32)
                span = _span(paragraph.context, question, pieces, shape.strict, where) if learn else (-1, -1)
                if span is None:
                    misplaced += 1
                else:
                    _add(found, query, pieces, shape, special, number, span, learn, f"{where}: question {question.id}")
                number += 1
        tell(number, total)
    if misplaced and not found.ids:
        raise UserError(
            f"{where}: all {number:,} of its questions were left out: their answers are not in their contexts, "
            "or not where the file says",
            "mend 'answer_start', which counts characters from 0; --strict names the first answer",
        )
    return _features(found, learn, number, misplaced)


def windows(pieces: int, room: int, stride: int) -> list[tuple[int, int]]:
    """(start, end) of the windows over so many pieces; the last one ends with the paragraph."""
    found = []
    start = 0
    while True:
        end = min(start + room, pieces)
        found.append((start, end))
        if end == pieces:
            return found
        start += min(end - start, stride)


def max_context(spans: Sequence[tuple[int, int]], pieces: int) -> np.ndarray:
    """(P,) the window in which each piece has its maximum context; the first of equals."""
    best, owner = np.full(pieces, -np.inf), np.zeros(pieces, np.int32)
    for window, (start, end) in enumerate(spans):
        places = np.arange(start, end)
        scores = np.minimum(places - start, end - 1 - places) + 0.01 * (end - start)
        better = scores > best[start:end]
        best[start:end][better] = scores[better]
        owner[start:end][better] = window
    return owner


def encode_pieces(made: Tokenizer, contexts: Sequence[str]) -> Iterator[TextPieces]:
    """The contexts' pieces, those of like length on all cores; a very long one is encoded part by part."""
    for together in batches(contexts, AT_ONCE):
        short = iter(made.encode_batch([text for text in together if len(text) <= LONG], add_special_tokens=False))
        for text in together:
            ids, offsets = encode_long(made, text) if len(text) > LONG else of_encoding(next(short))
            yield TextPieces(ids, offsets[:, 0], offsets[:, 1])


def _span(context: str, question: Question, pieces: TextPieces, strict: bool, where: str) -> tuple[int, int] | None:
    """The first and last piece of the question's first answer; (-1, -1) where there is none; None: misplaced."""
    if question.impossible:
        return -1, -1
    if not question.answers:
        raise UserError(f"{where}: question {question.id} has no answer to learn from", "give a training file")
    answer = question.answers[0]
    end = answer.start + len(answer.text)
    stands = context[answer.start : end] if answer.start >= 0 else ""
    if stands.split() == answer.text.split() and stands.strip():
        first = int(np.searchsorted(pieces.ends, answer.start, "right"))
        last = int(np.searchsorted(pieces.starts, end, "left")) - 1
        if first <= last:
            return first, last
    if strict:
        raise UserError(
            f"{where}: question {question.id}: the answer {answer.text!r} does not stand at character {answer.start}",
            "correct the file, or drop --strict to skip the question",
        )
    return None


def _add(
    found: Collected,
    query: np.ndarray,
    pieces: TextPieces,
    shape: Shape,
    special: Mapping[str, int],
    number: int,
    span: tuple[int, int],
    learn: bool,
    where: str,
) -> None:
    """All windows of one question."""
    room = shape.seq_length - len(query) - 3
    if room < 1:
        raise UserError(
            f"{where} has {len(query)} word pieces, which leaves no room for its paragraph in {shape.seq_length}",
            "raise -s, or cut questions with --set data.query_length=N",
        )
    before = np.concatenate([[special["[CLS]"]], query, [special["[SEP]"]]]).astype(np.int32)
    behind = np.array([special["[SEP]"]], np.int32)
    spans = windows(len(pieces.ids), room, shape.doc_stride)
    owner = None if learn else max_context(spans, len(pieces.ids))
    for window, (start, end) in enumerate(spans):
        found.ids.append(np.concatenate([before, pieces.ids[start:end], behind]))
        found.types.append(np.repeat(np.array([0, 1], np.int32), [len(before), end - start + 1]))
        found.questions.append(number)
        inside = learn and start <= span[0] and span[1] < end
        found.first.append(len(before) + span[0] - start if inside else 0)
        found.last.append(len(before) + span[1] - start if inside else 0)
        if owner is not None:
            for into, values, outside in (
                (found.starts, pieces.starts[start:end], OUTSIDE), (found.ends, pieces.ends[start:end], OUTSIDE),
                (found.max_context, owner[start:end] == window, False),
            ):  # fmt: skip
                into.append(np.pad(values, (len(before), 1), constant_values=outside))


def _features(found: Collected, learn: bool, questions: int, misplaced: int) -> Features:
    lengths = np.array([len(ids) for ids in found.ids], np.int64)
    notes = {"questions": np.array([questions]), "misplaced": np.array([misplaced])}
    labels = {}
    if learn:
        labels = {"start_positions": np.array(found.first, np.int64), "end_positions": np.array(found.last, np.int64)}
    else:
        notes |= {"start": _join(found.starts), "end": _join(found.ends)}
        notes |= {"max_context": _join(found.max_context).astype(bool)}
        notes |= {"question": np.array(found.questions, np.int32)}
    starts = np.concatenate([[0], np.cumsum(lengths)])
    return Features(_join(found.ids), _join(found.types), starts, labels, notes)


def _join(parts: list[np.ndarray]) -> np.ndarray:
    joined = np.concatenate(parts) if parts else np.empty(0, np.int32)
    parts.clear()  # both together are the peak of memory
    return joined
