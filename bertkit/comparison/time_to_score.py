"""Time and energy to a score that is the same for all: the one asked for, or the best that every run reached."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from bertkit.comparison.entries import Entry
from bertkit.comparison.figures import Spread, spread
from bertkit.comparison.systems import System


@dataclass(frozen=True)
class Reached:
    """When one system reached the score, at the first evaluation that saw it."""

    system: str
    updates: Spread | None
    seconds: Spread | None  # of training, evaluation left out
    joules: Spread | None  # these seconds at the run's mean power
    reached: int  # seeds that did
    of: int  # seeds that were evaluated on the way


@dataclass(frozen=True)
class Race:
    """All systems to one score."""

    metric: str
    target: float
    asked: bool  # by the user; else what every run reached
    systems: Sequence[Reached]


def race(systems: Sequence[System], target: float | None) -> Race | None:
    """None where no metric was evaluated on the way by at least one run, or the runs share none."""
    entries = [entry for system in systems for entry in system.entries if entry.evaluations]
    shared = [name for name in _names(entries[0]) if all(name in _names(entry) for entry in entries)] if entries else []
    if not shared:
        return None
    metric = shared[0]
    bests = [max(scores) for entry in entries if (scores := [value for _, _, value in course(entry, metric)])]
    if not bests:
        return None
    score = min(bests) if target is None else target
    return Race(metric, score, target is not None, [_reached(system, metric, score) for system in systems])


def course(entry: Entry, metric: str) -> list[tuple[int, float | None, float]]:
    """(update, seconds of training, score) of each evaluation that has the metric."""
    return [
        (one.step, one.seconds, value) for one in entry.evaluations if (value := one.metrics.get(metric)) is not None
    ]


def _names(entry: Entry) -> list[str]:
    return list(dict.fromkeys(name for one in entry.evaluations for name in one.metrics))


def _reached(system: System, metric: str, score: float) -> Reached:
    courses = [(entry, course(entry, metric)) for entry in system.entries if entry.evaluations]
    first = [
        (entry, at)
        for entry, seen in courses
        if (at := next((one for one in seen if one[2] >= score), None)) is not None
    ]
    joules = [None if at[1] is None or entry.watts is None else at[1] * entry.watts for entry, at in first]
    return Reached(
        system.name,
        spread(float(at[0]) for _, at in first),
        spread(at[1] for _, at in first),
        spread(joules),
        len(first),
        len(courses),
    )
