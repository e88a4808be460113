"""Word vectors in GloVe's text format, and the words nearest to a word by cosine.

A line is a word and its numbers, parted by spaces; a first line with only the two counts, as word2vec and fastText
write it, is passed over. Source: Pennington et al. 2014, and the published files.

Legend: R rows, D numbers of a vector.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from bertkit.data.augmentation.words import may_replace
from bertkit.errors import UserError
from bertkit.files.packed import open_text, read_line

MOST_ROWS = 100_000
LONGEST_LINE = 1 << 16  # bytes
AT_ONCE = 64  # words that are compared with all rows at a time: R of them as float32 are 25 MB
CURE = "give word vectors as text, as glove.6B.300d.txt of nlp.stanford.edu/projects/glove"


@dataclass(frozen=True)
class WordVectors:
    """The words of a file that may replace others, and their vectors."""

    words: tuple[str, ...]  # R, in the order of the file
    vectors: np.ndarray  # (R, D) float32, each of norm 1

    def nearest(
        self, asked: Iterable[str], count: int, progress: Callable[[int, int], object] = lambda done, of: None
    ) -> Mapping[str, tuple[str, ...]]:
        """Word -> the `count` nearest others, those of the same letters left out; only for words that have a vector."""
        places = {word: place for place, word in reversed([*enumerate(self.words)])}  # of one word twice the first
        known = sorted({word for word in asked if word in places})
        found: dict[str, tuple[str, ...]] = {}
        for first in range(0, len(known), AT_ONCE):
            part = known[first : first + AT_ONCE]
            cosines = self.vectors[[places[word] for word in part]] @ self.vectors.T
            most = min(2 * count + 4, cosines.shape[1])  # some may be the word itself in other letters
            near = np.argpartition(-cosines, most - 1, axis=1)[:, :most]
            for word, row, values in zip(part, near, np.take_along_axis(cosines, near, 1), strict=True):
                order = row[np.lexsort((row, -values))].tolist()
                others = dict.fromkeys(self.words[place] for place in order)
                found[word] = tuple(one for one in others if one.lower() != word.lower())[:count]
            progress(first + len(part), len(known))
        return {word: near for word, near in found.items() if near}


def read_vectors(path: Path, progress: Callable[[int], object] = lambda done: None) -> WordVectors:
    """The first MOST_ROWS rows of the file; `progress` is called with how many are read.

    Raises UserError where it is missing, and for a line that is no word with as many numbers as the first has.
    """
    words: list[str] = []
    rows: list[np.ndarray] = []
    width = 0
    with open_text(path) as file:
        for number in range(1, MOST_ROWS + 2):
            line = read_line(file, path, LONGEST_LINE)
            if not line or len(words) == MOST_ROWS:
                break
            fields = line.decode("utf-8", "replace").rstrip().split(" ")
            if number == 1 and len(fields) == 2 and all(field.isdecimal() for field in fields):
                continue
            width = width or len(fields) - 1
            words.append(" ".join(fields[:-width]) if width else "")
            rows.append(_numbers(fields, width, f"{path}:{number}"))
            if not number % 1000:
                progress(number)
    if not words:
        raise UserError(f"{path}: holds no word vectors", CURE)
    return _sound(words, np.array(rows, np.float32), path)


def _numbers(fields: list[str], width: int, place: str) -> np.ndarray:
    if len(fields) <= width or not width or not fields[0]:
        raise UserError(f"{place}: is no word with {width or 'its'} numbers", CURE)
    try:
        return np.array(fields[-width:], np.float32)
    except ValueError:
        raise UserError(f"{place}: holds something that is no number", CURE) from None


def _sound(words: list[str], vectors: np.ndarray, path: Path) -> WordVectors:
    """Those that have a direction, of words of letters. Raises UserError where there is none."""
    if not np.isfinite(vectors).all():
        row = int((~np.isfinite(vectors)).any(1).argmax())
        raise UserError(f"{path}: the vector of {words[row]!r} is not finite", CURE)
    norms = np.linalg.norm(vectors, axis=1)
    kept = [place for place, word in enumerate(words) if may_replace(word) and norms[place]]
    if not kept:
        raise UserError(f"{path}: has no vector of a word of letters", CURE)
    return WordVectors(tuple(words[place] for place in kept), vectors[kept] / norms[kept, None])
