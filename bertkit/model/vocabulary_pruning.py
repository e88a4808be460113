"""A vocabulary with fewer word pieces, in which texts are still cut by the same rules.

WordPiece takes the longest piece that a word begins with, then the longest that its rest begins with. With some pieces
taken out, it cuts a word as before if all the pieces of that word are still there: none that is longer has come. A word
that needs another piece is cut into shorter ones, at worst into characters; so these stay, at the start of a word and
within one, and what could be encoded still can be.

Legend: V pieces of the vocabulary.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Iterator, Sequence

import numpy as np

from bertkit.model.vocabulary import LONGEST_WORD, Vocabulary

WITHIN = "##"  # before a piece that does not begin a word


@dataclasses.dataclass(frozen=True)
class NeededPieces:
    """The ids that stay whatever the texts are."""

    special: frozenset[int]  # those in roles, and added tokens
    characters: frozenset[int]  # pieces of one character
    bound: frozenset[int]  # pieces with a character that is no piece of its own where it stands

    @property
    def all(self) -> frozenset[int]:
        return self.special | self.characters | self.bound


def needed_pieces(vocabulary: Vocabulary) -> NeededPieces:
    """What no text can do without.

    Where `bound` is empty, each word that could be encoded still can be, whatever else is taken out. Where it is not, a
    word with such a character may become [UNK], if pieces beside it are taken out.
    """
    special = {vocabulary.ids[piece] for piece in vocabulary.special}
    special |= {token.number for token in vocabulary.added if token.number is not None}
    words = {piece: number for piece, number in _words(vocabulary).items() if number not in special}
    single = {piece: number for piece, number in words.items() if len(piece.removeprefix(WITHIN)) == 1}
    bound = {number for piece, number in words.items() if not all(part in single for part in _characters(piece))}
    return NeededPieces(frozenset(special), frozenset(single.values()), frozenset(bound))


def keep_pieces(vocabulary: Vocabulary, ids: Sequence[int]) -> Vocabulary:
    """The vocabulary of the pieces with these ids, in ascending order, numbered anew.

    The special pieces and added tokens must be among them.
    """
    new = {old: number for number, old in enumerate(ids)}
    last = vocabulary.word_pieces
    return dataclasses.replace(
        vocabulary,
        pieces=tuple(vocabulary.pieces[old] for old in ids),
        added=tuple(dataclasses.replace(token, number=new[token.number or 0]) for token in vocabulary.added),
        word_pieces=None if last is None else sum(old < last for old in ids),
    )


def kept_ids(vocabulary: Vocabulary, counts: np.ndarray, at_least: int) -> list[int]:
    """The needed pieces and those that occur `at_least` times by `counts` (V,), in ascending order.

    Of ids without a piece, and of the first of two equal ones, none stays: no text has them.
    """
    frequent = {int(number) for number in np.flatnonzero(counts >= at_least)}
    return sorted((needed_pieces(vocabulary).all | frequent) & set(vocabulary.ids.values()))


def matched(word: str, known: Collection[str]) -> Iterator[str]:
    """The pieces that WordPiece finds in a word, up to where it finds none and the word becomes [UNK].

    Their being taken out would let it find others, and the word be encoded otherwise.
    """
    start = 0
    while start < len(word) <= LONGEST_WORD:
        before = WITHIN if start else ""
        stop = next((end for end in range(len(word), start, -1) if before + word[start:end] in known), 0)
        if not stop:
            return
        yield before + word[start:stop]
        start = stop


def _words(vocabulary: Vocabulary) -> dict[str, int]:
    """Piece -> id of those that words are made of."""
    return {p: n for p, n in vocabulary.ids.items() if vocabulary.word_pieces is None or n < vocabulary.word_pieces}


def _characters(piece: str) -> Iterator[str]:
    """The pieces of one character that a piece could be replaced by."""
    inside = piece.startswith(WITHIN) and len(piece) > len(WITHIN)
    for place, character in enumerate(piece.removeprefix(WITHIN) if inside else piece):
        yield WITHIN + character if inside or place else character
