"""Copies of an example in which words are replaced at random, each drawn from (seed, example, text) alone.

What is not replaced stays as it was, character by character: a replacement stands in the place of the word's own
characters, and positions in the text are moved by what stands before them.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

from bertkit.data.augmentation.words import in_case_of


@dataclass(frozen=True)
class ReplaceableWord:
    """A word of a text, and what may stand in its place."""

    start: int  # characters of the text
    end: int
    options: tuple[str, ...]  # at least one
    takes_case: bool = True  # whether a replacement is written in the word's own case form


@dataclass(frozen=True)
class Replacement:
    """What stands in the place of some characters of a text."""

    start: int
    end: int
    word: str


@dataclass(frozen=True)
class VariedText:
    """A text with some of its words replaced."""

    text: str
    replaced: tuple[Replacement, ...]  # in the text's order, apart from one another

    def moved(self, position: int) -> int:
        """Where a character of the original, that is in no replaced word, stands now."""
        return position + sum(len(one.word) - (one.end - one.start) for one in self.replaced if one.end <= position)


def vary(text: str, words: Sequence[ReplaceableWord], share: float, stream: random.Random) -> VariedText:
    """`text` with each of `words` replaced with the probability `share`."""
    chosen, parts, done = [], [], 0
    for word in words:
        if stream.random() >= share:
            continue
        option = word.options[int(stream.random() * len(word.options))]
        made = in_case_of(text[word.start : word.end], option) if word.takes_case else option
        chosen.append(Replacement(word.start, word.end, made))
        parts += [text[done : word.start], made]
        done = word.end
    return VariedText("".join([*parts, text[done:]]), tuple(chosen))


def copies(
    texts: Sequence[str],
    words: Sequence[Sequence[ReplaceableWord]],
    count: int,
    share: float,
    key: str,
) -> list[tuple[VariedText, ...]]:
    """Up to `count` different copies of an example, none of them the example itself; each of its texts is drawn anew.

    `key`: the seed and the example, in words. Texts of an example vary by streams of their own.
    """
    streams = [random.Random(f"{key} {place} {text}") for place, text in enumerate(texts)]  # noqa: S311 - no secrets
    seen, made = {tuple(texts)}, []
    if not any(words):
        return []
    for _ in range(count):
        copy = tuple(
            vary(text, found, share, stream) for text, found, stream in zip(texts, words, streams, strict=True)
        )
        spelled = tuple(one.text for one in copy)
        if spelled not in seen:
            seen.add(spelled)
            made.append(copy)
    return made
