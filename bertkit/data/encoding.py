"""Texts as Features, by the `tokenizers` library.

Legend: T tokens of all examples, N examples.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from bertkit.data.features import Features
from bertkit.model.long_texts import batches, shortened
from bertkit.model.tokenizer import tokenizer
from bertkit.model.vocabulary import Vocabulary

if TYPE_CHECKING:
    from tokenizers import Tokenizer


def encode(
    vocabulary: Vocabulary,
    first: Sequence[str],
    second: Sequence[str] | None,
    labels: dict[str, np.ndarray],
    seq_length: int,
    progress: Callable[[int], object] = lambda done: None,
    notes: Mapping[str, np.ndarray] | None = None,
    made: Tokenizer | None = None,
) -> Features:
    """N texts, or pairs of texts, as Features of at most `seq_length` tokens; the longer text is cut first.

    `made`: the vocabulary's tokenizer, where the caller keeps one, whose truncation is set here.
    """
    made = made or tokenizer(vocabulary)
    made.no_truncation()
    first, second = shortened(made, first, second, seq_length)
    made.enable_truncation(seq_length, strategy="longest_first")
    inputs: Sequence[Any] = first if second is None else list(zip(first, second, strict=True))
    ids: list[np.ndarray] = []
    types: list[np.ndarray] = []
    lengths = np.zeros(len(inputs), np.int64)
    done = 0
    for together in batches(inputs, 4096):  # in parts, so that progress can be shown; an array for each part, not row
        found = made.encode_batch(together)
        each = [np.array(encoding.ids, np.int32) for encoding in found]
        lengths[done : done + len(found)] = [len(row) for row in each]
        ids.append(np.concatenate(each))
        types.append(np.concatenate([np.array(encoding.type_ids, np.int32) for encoding in found]))
        done += len(found)
        progress(done)
    return Features(_join(ids), _join(types), np.concatenate([[0], np.cumsum(lengths)]), labels, notes or {})


def encode_words(
    vocabulary: Vocabulary,
    sentences: Sequence[Sequence[str]],
    seq_length: int,
    progress: Callable[[int], object] = lambda done: None,
) -> tuple[Features, np.ndarray]:
    """(N sentences of words as Features of at most `seq_length` tokens, (W,) the token that each word begins with).

    -1: of a word that is cut off, or that has no piece, as one of control characters has none.
    """
    made = tokenizer(vocabulary)
    made.enable_truncation(seq_length)
    ids: list[np.ndarray] = []
    first: list[np.ndarray] = []
    before = 0
    for together in batches(sentences, 4096):
        for words, encoding in zip(together, made.encode_batch(together, is_pretokenized=True), strict=True):
            places = np.full(len(words), -1, np.int64)
            for token, word in reversed([*enumerate(encoding.word_ids)]):  # a word's first piece is met last
                if word is not None:
                    places[word] = before + token
            first.append(places)
            ids.append(np.array(encoding.ids, np.int32))
            before += len(ids[-1])
        progress(len(ids))
    tokens = _join(ids)
    starts = np.concatenate([[0], np.cumsum([len(each) for each in ids])]).astype(np.int64)
    return Features(tokens, np.zeros_like(tokens), starts, {}, {}), np.concatenate([*first, np.empty(0, np.int64)])


@dataclass(frozen=True)
class WordPlace:
    """A word of a text: its first token, and its characters."""

    token: int  # within the sequence
    start: int
    end: int


def encode_with_places(
    vocabulary: Vocabulary, texts: Sequence[str], seq_length: int, made: Tokenizer | None = None
) -> tuple[Features, list[list[WordPlace]]]:
    """(N texts as Features, the words of each, as the tokenizer parts it, that stand within `seq_length` tokens).

    `made`: as in `encode`.
    """
    made = made or tokenizer(vocabulary)
    made.no_truncation()
    cut, _ = shortened(made, texts, None, seq_length)
    made.enable_truncation(seq_length)
    found = made.encode_batch(list(cut))
    ids = [np.array(encoding.ids, np.int32) for encoding in found]
    starts = np.concatenate([[0], np.cumsum([len(each) for each in ids])]).astype(np.int64)
    tokens = _join(ids)
    return Features(tokens, np.zeros_like(tokens), starts, {}), [_places(encoding) for encoding in found]


def _places(encoding: Any) -> list[WordPlace]:
    found: dict[int, WordPlace] = {}
    for token, (word, (start, end)) in enumerate(zip(encoding.word_ids, encoding.offsets, strict=True)):
        if word is not None:
            first = found.get(word)
            found[word] = WordPlace(token, start, end) if first is None else WordPlace(first.token, first.start, end)
    return [found[word] for word in sorted(found)]


def _join(parts: list[np.ndarray]) -> np.ndarray:
    return np.concatenate(parts) if parts else np.empty(0, np.int32)
