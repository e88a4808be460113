"""The comparison as data: whatever is shown, written or plotted is made from this."""

from __future__ import annotations

import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from bertkit.comparison.entries import Entry
from bertkit.comparison.fairness import WEIGHTS, Difference, differences, names, silent
from bertkit.comparison.figures import FIGURES, LAST_LOSS, Against, Figure, Spread, against, by_teacher, metric
from bertkit.comparison.scaling import Family, families
from bertkit.comparison.systems import System, find, systems
from bertkit.comparison.time_to_score import Race, race
from bertkit.comparison.trade_off import TradeOff, trade_off
from bertkit.comparison.vs_published import Beside, beside
from bertkit.errors import UserError


@dataclass(frozen=True)
class Comparison:
    """Systems side by side."""

    systems: Sequence[System]
    baseline: System
    differences: Sequence[Difference]
    marks: Sequence[str]  # what must be said of single records
    left_out: Sequence[str]  # records that could not be read, a line each
    figures: Sequence[Figure]  # those that at least one system has, metrics first
    families: Sequence[Family]
    race: Race | None
    trade_off: TradeOff | None
    published: Sequence[Beside]  # beside the baseline

    def __str__(self) -> str:
        """As `bertkit compare` shows it."""
        from bertkit.comparison.text import show  # it is made from this module

        stream = io.StringIO()
        show(self, stream)
        return stream.getvalue()

    def spread(self, system: System, figure: Figure) -> Spread | None:
        return system.spread(figure.key)

    def against(self, system: System, figure: Figure) -> Against | None:
        """None of the baseline itself."""
        if system is self.baseline:
            return None
        return against(system.spread(figure.key), self.baseline.spread(figure.key))


def compare(
    entries: Sequence[Entry],
    baseline: str | None = None,
    target: float | None = None,
    left_out: Sequence[str] = (),
    published: Sequence[str] = (),
) -> Comparison:
    """Group, check and compare with the baseline: the named system, else the first."""
    if not entries:
        raise UserError("there is no record to compare", "give folders of runs, or records' files")
    found = systems(entries)
    base = find(baseline, found) if baseline else found[0]
    theirs = beside(base, published)
    differing = differences(found) + ([silent(published)] if theirs else [])
    scores = list(dict.fromkeys(name for system in found for name in system.metrics()))
    wanted = [*(metric(name) for name in scores), LAST_LOSS, *FIGURES]
    return Comparison(
        systems=found,
        baseline=base,
        differences=sorted(differing, key=lambda one: WEIGHTS.index(one.weight)),
        marks=_marks(found),
        left_out=left_out,
        figures=[one for one in wanted if any(system.spread(one.key) is not None for system in found)],
        families=families(found),
        race=race(found, target),
        trade_off=trade_off(found),
        published=theirs,
    )


def _lacking(entry: Entry, known: Iterable[str]) -> list[str]:
    """That a scored record lacks a metric which others of its task have, apart from those by a teacher."""
    has = {name for score in entry.scores for name, value in score.items() if value is not None}
    lacks = [name for name in known if name not in has and not by_teacher(name)]
    return [f"has no {', '.join(lacks)}, which others of its task have"] if has and lacks else []


def _marks(found: Sequence[System]) -> list[str]:
    """What must be said of records, those of which the same is said in one line."""
    said: dict[str, list[str]] = {}
    known: dict[str | None, dict[str, None]] = {}
    for system in found:
        known.setdefault(system.place.task, {}).update(dict.fromkeys(system.metrics()))
    for system in found:
        for entry in system.entries:
            for mark in (*entry.marks, *_lacking(entry, known[system.place.task])):
                said.setdefault(mark, []).append(entry.name)
    return [f"{names(who)}: {mark}" for mark, who in said.items()]
