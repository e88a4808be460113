"""The candidates of every word of a file's different texts, each computed once, in parts that are kept until the end.

Legend: W words of the file's different texts, K candidates of a word.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import numpy as np

from bertkit.console import Display
from bertkit.data.augmentation.masked import MaskedSequence
from bertkit.data.augmentation.texts import VariedExample, WordTable, is_protected
from bertkit.data.augmentation.variants import ReplaceableWord
from bertkit.data.augmentation.words import SEVERAL
from bertkit.errors import Stopped, UserError
from bertkit.training.augmenting_parts import CandidateParts
from bertkit.training.augmenting_work import AugmentationWork, sequences_of
from bertkit.training.masked_words import MaskedWords, candidate_count

DRAWN = 16  # parts whose batches an engine plans its sizes by


def find_candidates(work: AugmentationWork, parts: CandidateParts, display: Display) -> np.ndarray:
    """(words of one piece, K) ids of every word's candidates; those of parts that are done are read."""
    count = candidate_count(work.model.vocabulary, work.way.candidates)
    shapes = [(_one_piece(work.table, *part), count) for part in work.parts]
    found = [parts.read(number, shape) for number, shape in enumerate(shapes)]
    left = [number for number, part in enumerate(found) if part is None]
    total = sum(rows for rows, _ in shapes)
    done = total - sum(shapes[number][0] for number in left)
    with contextlib.ExitStack() as stack:
        stack.enter_context(_kept_when_stopped())
        if left:
            step = max(1, len(left) // DRAWN)
            drawn = [one for number in left[::step] for one in _sequences(work, number)]
            words = stack.enter_context(
                contextlib.closing(MaskedWords(work.model, work.table, work.way.candidates, work.masking, drawn))
            )
        bar = stack.enter_context(display.progress("masked words", total, done))
        for number in left:
            proposed = words.propose(_sequences(work, number), bar.add)
            rows = [proposed[place] for place in _places(work.table, *work.parts[number])]
            found[number] = made = np.array(rows, np.int32)
            parts.write(number, made)
    return np.concatenate([np.empty((0, count), np.int32), *(part for part in found if part is not None)])


@contextlib.contextmanager
def _kept_when_stopped() -> Iterator[None]:
    """Within it, Ctrl-C says that nothing is lost."""
    try:
        yield
    except KeyboardInterrupt:
        raise Stopped("stopped", "what is finished is kept: the same command resumes") from None


def _sequences(work: AugmentationWork, part: int) -> list[MaskedSequence]:
    return [one for number in range(*work.parts[part]) for one in sequences_of(work, number)]


def _places(table: WordTable, first: int, end: int) -> list[tuple[int, int]]:
    """(text, piece) of the words of one piece, in their order."""
    return [(number, word.piece) for number in range(first, end) for word in table.words(number) if word.piece >= 0]


def _one_piece(table: WordTable, first: int, end: int) -> int:
    pieces = table.pieces[table.first[first] : table.first[end]]
    return len(pieces) - pieces.count(SEVERAL)


class Candidates:
    """What may stand in the place of each word of the file."""

    def __init__(self, work: AugmentationWork, found: np.ndarray) -> None:
        """`found`: as `find_candidates` gives it."""
        self.work, self.found = work, found
        one_piece = np.array(work.table.pieces, np.int64) != SEVERAL
        self.rows = np.cumsum(one_piece) - one_piece  # (W,) row of `found`
        self.pieces, self.takes_case = work.model.vocabulary.pieces, work.model.vocabulary.lower_case

    def words(self, text: str, example: VariedExample) -> list[ReplaceableWord]:
        """The words of one of the example's texts that may be replaced in it."""
        table = self.work.table
        number, made = table.number(text), []
        if number is None:
            raise UserError(f"{self.work.source.path}: was changed while it was augmented", "run the command again")
        for place, word in enumerate(table.words(number), table.first[number]):
            if is_protected(word.start, word.end, example.protected):
                continue
            if word.piece != SEVERAL:
                options = tuple(self.pieces[piece] for piece in self.found[self.rows[place]].tolist())
                made.append(ReplaceableWord(word.start, word.end, options, self.takes_case))
            elif near := self.work.near.get(text[word.start : word.end].lower()):
                made.append(ReplaceableWord(word.start, word.end, tuple(near)))
        return made
