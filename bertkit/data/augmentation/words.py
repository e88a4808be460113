"""Which words of a text may be replaced, and how a replacement is spelled in the place of a word.

A word is a token of BERT's basic tokenizer that consists of letters alone and is no stop word; its characters' places
are those of the text as it stands, whatever the tokenizer makes of it. The stop words are scikit-learn's, and `MORE`.

Legend: P pieces of a text, W words of it.
"""

from __future__ import annotations

import functools
import unicodedata
from dataclasses import dataclass

import numpy as np

from bertkit.model.vocabulary import Vocabulary

APOSTROPHES = "'\u2019"
ENCLITICS = frozenset({"d", "ll", "m", "re", "s", "t", "ve"})  # what stands behind an apostrophe in English
# Which that list lacks: forms of its auxiliary verbs, and what stands before n't in ca n't, wo n't, sha n't
MORE = frozenset({"ca", "did", "does", "doing", "having", "just", "sha", "theirs", "wo"})
SEVERAL = -1  # in the place of a word's piece: it has several, or is not in the vocabulary


@dataclass(frozen=True)
class WordSpan:
    """A word of a text."""

    start: int  # characters
    end: int
    piece: int  # its place among the text's pieces; SEVERAL: it is not one piece of the vocabulary


@functools.cache
def stop_words() -> frozenset[str]:
    """English words that say little by themselves."""
    from sklearn.feature_extraction.text import ENGLISH_STOP_WORDS

    return frozenset(ENGLISH_STOP_WORDS) | MORE


def continuations(vocabulary: Vocabulary) -> np.ndarray:
    """(V,) whether a piece continues a word."""
    return np.array([piece.startswith("##") for piece in vocabulary.pieces])


def words_of(text: str, ids: np.ndarray, offsets: np.ndarray, continues: np.ndarray, unknown: int) -> list[WordSpan]:
    """The words of `text` that may be replaced, in their order.

    `ids` (P,), `offsets` (P, 2): its pieces and their characters; `continues` (V,): as `continuations` has it;
    `unknown`: the id that stands for a word that has no pieces.
    """
    if not len(ids):
        return []
    first = np.flatnonzero(~continues[ids])
    last = np.concatenate([first[1:], [len(ids)]]) - 1
    whole = (first == last) & (ids[first] != unknown)
    starts, ends = offsets[first, 0].tolist(), offsets[last, 1].tolist()
    found = zip(starts, ends, np.where(whole, first, SEVERAL).tolist(), strict=True)
    return [WordSpan(*one) for one in found if _is_replaceable(text, one[0], one[1])]


def may_replace(word: str) -> bool:
    """Whether a word may stand in the place of another: letters alone, more than one of ASCII's, and no stop word."""
    letter = len(word) == 1 and word.isascii()
    return word.isalpha() and not letter and word.lower() not in stop_words()


def _is_replaceable(text: str, start: int, end: int) -> bool:
    word = text[start:end]
    if not may_replace(word):
        return False
    behind = text[end : end + 1]
    if behind and unicodedata.category(behind).startswith("M"):  # an accent of its own that the tokenizer drops
        return False
    return not _is_contracted(text, start, end)


def _is_contracted(text: str, start: int, end: int) -> bool:
    """Whether the word is a part of don't, it's, ca n't, O'Neill: a replacement would be no word."""
    if start and text[start - 1] in APOSTROPHES:
        attached = start > 1 and text[start - 2].isalpha()
        if attached or text[start:end].lower() in ENCLITICS:
            return True
    behind = text[end : end + 3]
    negated = behind[:1] and behind[:1] in APOSTROPHES and behind[1:2].lower() == "t"
    return bool(negated) and not behind[2:].isalpha()


def in_case_of(word: str, replacement: str) -> str:
    """`replacement` in capitals, with a first capital, or as it is, as `word` is written."""
    if len(word) > 1 and word.isupper():
        return replacement.upper()
    return replacement[:1].upper() + replacement[1:] if word[:1].isupper() else replacement


def whole_words(vocabulary: Vocabulary) -> np.ndarray:
    """(A,) ids of the pieces that may replace a word: words of letters that might be replaced themselves."""
    apart = {*vocabulary.special, *(token.content for token in vocabulary.added)}
    pieces = vocabulary.pieces[: vocabulary.word_pieces]
    ids = vocabulary.ids
    found = [number for number, piece in enumerate(pieces) if may_replace(piece) and piece not in apart]
    return np.array([number for number in found if ids[pieces[number]] == number], np.int64)
