"""Tags of tokens and the entities that they mark: IOB, IOBES, BILOU, or plain tags that mark none.

Which tags begin and end an entity is decided as conlleval does it, lenient where a sequence breaks the scheme: an
inside tag after another type begins an entity. Source: Ramshaw & Marcus 1995; conlleval.pl of CoNLL-2000; seqeval.

Legend: W words of a sentence.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

OUTSIDE = "O"
SINGLE = {"L": "E", "U": "S"}  # BILOU's letters as IOBES has them
PREFIXES = "BIESLU"
SCHEMES = {"IOB": "BI", "IOBES": "BIES", "BILOU": "BILU"}


@dataclass(frozen=True)
class Entity:
    """Words from `first` to `last`."""

    type: str
    first: int
    last: int


def parts(tag: str) -> tuple[str, str]:
    """(letter of the scheme, type). A plain tag is inside an entity of its own name."""
    if tag == OUTSIDE:
        return OUTSIDE, ""
    letter, dash, type_ = tag.partition("-")
    if dash and len(letter) == 1 and letter in PREFIXES:
        return SINGLE.get(letter, letter), type_
    return "I", tag


def entities(tags: Sequence[str]) -> list[Entity]:
    """(W,) -> the entities, in their order."""
    found: list[Entity] = []
    first, before = 0, (OUTSIDE, "")
    for place, tag in enumerate([*tags, OUTSIDE]):
        now = parts(tag)
        if before[0] != OUTSIDE and _ends(before, now):
            found.append(Entity(before[1], first, place - 1))
        if now[0] != OUTSIDE and (before[0] == OUTSIDE or _ends(before, now)):
            first = place
        before = now
    return found


def _ends(before: tuple[str, str], now: tuple[str, str]) -> bool:
    """Whether the entity that `before` is in goes on no longer."""
    return before[0] in "ES" or now[0] in "BSO" or before[1] != now[1]


def scheme_of(tags: Iterable[str]) -> str:
    """IOB, IOBES, BILOU, or "" for plain tags."""
    letters = set()
    for tag in tags:
        letter, dash, _ = tag.partition("-")
        if tag == OUTSIDE:
            continue
        if not dash or len(letter) != 1 or letter not in PREFIXES:
            return ""
        letters.add(letter)
    return next((name for name, known in SCHEMES.items() if letters <= set(known)), "") if letters else ""


def whole_set(tags: Iterable[str], scheme: str) -> tuple[str, ...]:
    """The tags in the order of the outputs; each type with all letters of its scheme, since other files may have more
    of them than the training file."""
    found = set(tags)
    if not scheme:
        return tuple(sorted(found, key=lambda tag: (tag != OUTSIDE, tag)))
    types = sorted({tag.partition("-")[2] for tag in found if tag != OUTSIDE})
    return (OUTSIDE, *(f"{letter}-{type_}" for type_ in types for letter in SCHEMES[scheme]))


@dataclass(frozen=True)
class EntityCounts:
    """How many entities are wanted, found, and both."""

    wanted: Counter[str]
    found: Counter[str]
    both: Counter[str]

    def scores(self, type_: str | None = None) -> tuple[float, float, float]:
        """(precision, recall, F1) of one type, or of all together; 0 where there is nothing to divide by."""
        wanted, found, both = (
            (each.total() if type_ is None else each[type_]) for each in (self.wanted, self.found, self.both)
        )
        precision, recall = both / found if found else 0.0, both / wanted if wanted else 0.0
        both_sum = precision + recall
        return precision, recall, 2 * precision * recall / both_sum if both_sum else 0.0

    @property
    def macro_f1(self) -> float:
        """The mean of the F1 of each type that is wanted or found."""
        types = self.wanted.keys() | self.found.keys()
        return sum(self.scores(type_)[2] for type_ in types) / len(types) if types else 0.0


def count_entities(wanted: Iterable[Sequence[str]], found: Iterable[Sequence[str]]) -> EntityCounts:
    """Over sentences: an entity is right where type, first and last word are."""
    counts = EntityCounts(Counter(), Counter(), Counter())
    for gold, said in zip(wanted, found, strict=True):
        right, answered = set(entities(gold)), set(entities(said))
        counts.wanted.update(entity.type for entity in right)
        counts.found.update(entity.type for entity in answered)
        counts.both.update(entity.type for entity in right & answered)
    return counts
