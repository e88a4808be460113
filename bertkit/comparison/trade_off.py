"""Score against size and against latency: which systems, and teachers of distilled ones, no other beats in both."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from bertkit.comparison.entries import Entry, TaughtBy
from bertkit.comparison.fairness import names
from bertkit.comparison.figures import METRIC, PARAMETERS, PER_EXAMPLE, Figure, Spread, by_teacher, digits, spread
from bertkit.comparison.systems import System
from bertkit.data.tasks.metrics import SMALLER_IS_BETTER, worth

COSTS = (PARAMETERS, PER_EXAMPLE)
STEADY = 0.1  # share by which one teacher's latencies may differ on one host


@dataclass(frozen=True)
class Contender:
    """A system, or a teacher as its students' records have it."""

    name: str
    is_teacher: bool
    score: Spread  # of a teacher without a deviation: all records are of one
    parameters: Spread | None  # in millions
    latency: Spread | None  # ms per example of the dev set; of a teacher over the records

    def cost(self, key: str) -> Spread | None:
        """By the figure's key."""
        return self.parameters if key == PARAMETERS.key else self.latency


@dataclass(frozen=True)
class ParetoFront:
    """The contenders that no other beats in score and cost: neither as good at less, nor better at as much."""

    cost: str  # key of the figure
    members: Sequence[int]  # their numbers, the cheapest first


@dataclass(frozen=True)
class TradeOff:
    """Systems that were scored on one dev set, by one metric."""

    metric: str
    contenders: Sequence[Contender]
    fronts: Sequence[ParetoFront]  # of the costs that can be compared and differ
    apart: Sequence[str]  # what differs where the latencies were measured, so that they cannot be compared
    unsteady: Sequence[str]  # teachers whose latencies differ from record to record, with the extremes
    left_out: Sequence[str]  # systems without this score


def trade_off(systems: Sequence[System]) -> TradeOff | None:
    """By the first metric that two contenders of one dev set have, who differ in size or have latencies; else None."""
    groups: dict[tuple[object, object], list[System]] = {}
    for system in systems:
        facts = system.entries[0].facts
        groups.setdefault((facts.get("task"), facts.get("evaluation_sha256")), []).append(system)
    for group in groups.values():
        for metric in dict.fromkeys(name for system in group for name in system.metrics() if not by_teacher(name)):
            scored = [system for system in group if system.spread(f"{METRIC}{metric}") is not None]
            found = [*(_of_system(system, metric) for system in scored), *teachers(scored, metric)]
            apart = conditions_apart([entry for system in scored for entry in system.entries])
            fronts = [front for cost in COSTS if (front := _front(found, metric, cost, apart)) is not None]
            if fronts or (apart and sum(one.latency is not None for one in found) > 1):
                left_out = [system.name for system in systems if system not in scored]
                return TradeOff(metric, found, fronts, apart, [] if apart else unsteady(scored), left_out)
    return None


def notes(found: TradeOff) -> list[str]:
    """What is not compared, in sentences."""
    told = []
    if found.apart:
        told.append(
            f"Latencies are not compared: they were measured under different conditions ({'; '.join(found.apart)})."
        )
    if found.unsteady:
        told.append(
            f"One teacher's latency differs between records, as of other work beside: {'; '.join(found.unsteady)}."
        )
    if found.left_out:
        told.append(f"Left out, without {found.metric} on this dev set: {names(found.left_out)}.")
    return told


def front(points: Sequence[tuple[float, float]]) -> list[int]:
    """Which of (cost, worth) no other beats by being no costlier, worth no less, and not equal; the cheapest first."""
    kept: list[int] = []
    for number in sorted(range(len(points)), key=lambda at: (points[at][0], -points[at][1])):
        if not kept or points[number][1] > points[kept[-1]][1] or points[number] == points[kept[-1]]:
            kept.append(number)
    return kept


def teachers(systems: Sequence[System], metric: str) -> list[Contender]:
    """Those whose score some record has, once each, whatever the number of students."""
    groups: dict[str, list[TaughtBy]] = {}
    for system in systems:
        for entry in system.entries:
            if entry.teacher is not None and metric in entry.teacher.metrics:
                groups.setdefault(entry.teacher.sha256, []).append(entry.teacher)
    called = [group[0].name for group in groups.values()]
    found = []
    for name, (digest, group) in zip(called, groups.items(), strict=True):
        mark = "teacher" if called.count(name) == 1 else f"teacher {digest[:8]}"
        score = spread(one.metrics[metric] for one in group)
        if score is not None:
            costs = [spread(one.figures[cost.key] for one in group) for cost in COSTS]
            found.append(Contender(f"{name} ({mark})", True, _alone(score), *costs))
    return found


def conditions_apart(entries: Sequence[Entry]) -> list[str]:
    """In what those differ that hold seconds for the dev set, each in words with its values."""
    timed = [entry.timed for entry in entries if _has_latency(entry)]
    told = []
    for name in timed[0] if timed else ():
        values = dict.fromkeys(one[name] or "unknown" for one in timed)
        if len(values) > 1:
            told.append(f"{name} {', '.join(values)}")
    return told


def unsteady(systems: Sequence[System]) -> list[str]:
    """What shows that latencies depend on what else ran: one teacher, one dev set, and unlike seconds."""
    seen: dict[str, list[tuple[str, float]]] = {}
    for system in systems:
        for entry in system.entries:
            if entry.teacher and (latency := entry.teacher.figures[PER_EXAMPLE.key]):
                seen.setdefault(entry.teacher.sha256, []).append((entry.teacher.name, latency))
    told = []
    for found in seen.values():
        low, high = min(value for _, value in found), max(value for _, value in found)
        if high > (1 + STEADY) * low:
            told.append(f"{found[0][0]}, {digits(low)} to {digits(high)} ms per example")
    return told


def _has_latency(entry: Entry) -> bool:
    theirs = entry.teacher.figures[PER_EXAMPLE.key] if entry.teacher else None
    return entry.figures[PER_EXAMPLE.key] is not None or theirs is not None


def _of_system(system: System, metric: str) -> Contender:
    score = system.spread(f"{METRIC}{metric}")
    if score is None:
        raise ValueError(f"{system.name} has no {metric}")
    return Contender(system.name, False, score, *(system.spread(cost.key) for cost in COSTS))


def _alone(score: Spread) -> Spread:
    return Spread(score.mean, None, score.n)


def _front(found: Sequence[Contender], metric: str, cost: Figure, apart: Sequence[str]) -> ParetoFront | None:
    """None where fewer than two have the cost, all sizes are equal, or latencies cannot be compared."""
    known = [(at, value.mean) for at, one in enumerate(found) if (value := one.cost(cost.key)) is not None]
    if len(known) < 2 or (len({value for _, value in known}) == 1 if cost is PARAMETERS else apart):
        return None
    members = front([(value, _worth(metric, found[at].score.mean)) for at, value in known])
    return ParetoFront(cost.key, [known[at][0] for at in members])


def _worth(metric: str, score: float) -> float:
    """As a number of which a larger one is better, whatever part of the dev set it is of."""
    base = next((name for name in SMALLER_IS_BETTER if metric == name or metric.startswith(f"{name}_")), metric)
    return worth(base, score)
