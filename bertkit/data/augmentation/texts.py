"""The different texts of a file, each once, and the words of each that may be replaced.

Legend: N texts, W words of all of them.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np

from bertkit.data.augmentation.variants import VariedText
from bertkit.data.augmentation.words import SEVERAL, WordSpan, continuations, words_of
from bertkit.data.tasks.reading import Progress
from bertkit.data.tasks.squad.windows import encode_pieces
from bertkit.model.tokenizer import tokenizer
from bertkit.model.vocabulary import Vocabulary

AT_ONCE = 4096  # texts that are encoded together
Protected = tuple[tuple[int, int], ...]  # characters of a text, each from … to, that stay as they are


@dataclass(frozen=True)
class VariedExample:
    """An example of a file: the texts of it that are varied, and all of it."""

    texts: tuple[str, ...]
    whole: Any  # a row's cells, a paragraph: what the file's own writer takes
    protected: Protected = ()  # of its only text


Group = tuple[VariedExample, Sequence[tuple[VariedText, ...]]]  # an example and its copies, each of as many texts


@dataclass(frozen=True)
class AugmentedFile:
    """A file whose examples are varied."""

    path: Path
    form: str  # in words
    examples: Callable[[], Iterable[VariedExample]]  # from the beginning, each time
    write: Callable[[Path, Iterable[Group]], object]  # to a new file
    columns: tuple[str, ...] = ()  # what is varied, in words
    notes: tuple[str, ...] = ()  # what was guessed, what is left out
    suffixes: tuple[str, ...] = ()  # of the file that is written; (): any


class WordTable:
    """The words of N different texts, in flat arrays: millions of them are kept."""

    def __init__(self, vocabulary: Vocabulary) -> None:
        self.texts: list[str] = []
        self.lengths = array("i")  # (N,) pieces of each text
        self.first = array("q", [0])  # (N + 1,) words of text i are first[i] to first[i + 1]
        self.starts, self.ends, self.pieces = array("i"), array("i"), array("i")  # (W,) as WordSpan has them
        self._numbers: dict[str, int] = {}
        self._made = tokenizer(vocabulary, names_are_text=True)
        self._continues, self._unknown = continuations(vocabulary), vocabulary.special_ids["[UNK]"]

    def add(self, found: dict[str, list[Protected]]) -> None:
        """Texts that are not there yet, each with what is protected wherever it stands: a word is left out where it
        is protected everywhere."""
        for (text, protected), pieces in zip(found.items(), encode_pieces(self._made, list(found)), strict=True):
            offsets = np.stack([pieces.starts, pieces.ends], 1)
            for word in words_of(text, pieces.ids, offsets, self._continues, self._unknown):
                if all(is_protected(word.start, word.end, spans) for spans in protected):
                    continue
                self.starts.append(word.start)
                self.ends.append(word.end)
                self.pieces.append(word.piece)
            self._numbers[text] = len(self.texts)
            self.texts.append(text)
            self.lengths.append(len(pieces.ids))
            self.first.append(len(self.starts))

    def pieces_of(self, numbers: Sequence[int]) -> list[np.ndarray]:
        """The ids of each text's pieces."""
        return [found.ids for found in encode_pieces(self._made, [self.texts[number] for number in numbers])]

    def words(self, number: int) -> list[WordSpan]:
        """Of text `number`."""
        places = range(self.first[number], self.first[number + 1])
        return [WordSpan(self.starts[place], self.ends[place], self.pieces[place]) for place in places]

    def number(self, text: str) -> int | None:
        """Of a text; None: it was not added."""
        return self._numbers.get(text)

    @property
    def counts(self) -> tuple[int, int]:
        """(words of one piece, words of several)."""
        several = self.pieces.count(SEVERAL)
        return len(self.pieces) - several, several

    @property
    def digest(self) -> str:
        """SHA-256 of the texts and of the places of their words."""
        total = sha256()
        for text in self.texts:
            total.update(text.encode("utf-8", "surrogatepass") + b"\0")
        for values in (self.first, self.starts, self.ends, self.pieces):
            total.update(values.tobytes())
        return total.hexdigest()


def is_protected(start: int, end: int, spans: Protected) -> bool:
    """Whether a word from `start` to `end` overlaps one of the spans."""
    return any(start < last and first < end for first, last in spans)


def word_table(
    source: AugmentedFile, vocabulary: Vocabulary, progress: Progress = lambda what, done, of: None
) -> tuple[WordTable, int]:
    """(the words of the file's different texts, examples)."""
    table = WordTable(vocabulary)
    occurrences: dict[str, list[Protected]] = {}
    count = 0
    for count, example in enumerate(source.examples(), 1):
        for text in example.texts:
            known = occurrences.setdefault(text, [])
            if example.protected not in known:
                known.append(example.protected)
        if not count % AT_ONCE:
            progress(f"reading {source.path.name}", count, 0)
    texts = list(occurrences)
    for first in range(0, len(texts), AT_ONCE):
        table.add({text: occurrences[text] for text in texts[first : first + AT_ONCE]})
        progress("finding words", min(first + AT_ONCE, len(texts)), len(texts))
    return table, count
