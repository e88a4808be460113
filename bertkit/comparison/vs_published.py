"""Published figures beside a system of one's own, each with what keeps the two from being compared."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from bertkit.comparison.figures import METRIC
from bertkit.comparison.published import PublishedFigure, figures
from bertkit.comparison.systems import System

# published metric -> (our figure for one device or of the whole, from our unit to theirs)
OURS = {
    "sequences_per_second": ("sequences_per_second_per_device", 1.0),
    "peak_memory_gb_per_device": ("peak_memory", 2**30 / 1e9),
    "latency_milliseconds_p50": ("step_p50", 1.0),
    "latency_milliseconds_p99": ("step_p99", 1.0),
}


@dataclass(frozen=True)
class Beside:
    """One published figure, and the system's own."""

    theirs: PublishedFigure
    value: float  # a rate is that of one device, where their number is known
    per_device: bool
    mine: float | None
    ratio: float | None  # mine over theirs, for the same task, model and length; of rates, on one device each
    differs: Sequence[str]  # why they do not compare


def beside(system: System, names: Iterable[str]) -> list[Beside]:
    """The figures published under `names` for what the system did; all of them where there are none for its task.

    Raises UserError for a name under which nothing is published.
    """
    found = list(dict.fromkeys(figure for name in names for figure in figures(name)))
    facts = system.entries[0].facts
    alike = [one for one in found if one.task == facts.get("task") and one.kind in (facts.get("measures"), "")]
    return [_beside(system, figure) for figure in alike or found]


def _beside(system: System, theirs: PublishedFigure) -> Beside:
    per_device = theirs.per_device
    value = theirs.value if per_device is None else per_device
    key, scale = OURS.get(theirs.metric, (f"{METRIC}{theirs.metric}", 1.0))
    latency = theirs.metric.startswith("latency")
    found = None if latency and system.entries[0].facts.get("measures") != "infer" else system.spread(key)
    mine = None if found is None else found.mean * scale
    place, unplaced = system.place, theirs.metric == "sequences_per_second" and per_device is None
    alike = (theirs.task, theirs.model, theirs.seq_length) == (place.task, place.model, place.length)
    differs = _differs(system, theirs)
    if theirs.served or latency:  # a rate or a latency of other conditions says nothing
        alike = alike and not differs
    ratio = mine / value if alike and value and mine is not None and not unplaced else None
    return Beside(theirs, value, per_device is not None, mine, ratio, [*differs, *theirs.caveats])


def _differs(system: System, theirs: PublishedFigure) -> list[str]:
    """Conditions that the two do not share, or that the source does not state."""
    place, devices = system.place, system.place.devices or 1
    mine = place.batch / devices if place.batch else None
    batch = theirs.global_batch / theirs.devices if theirs.global_batch and theirs.devices else theirs.batch
    pairs = (
        ("task", theirs.task, place.task),
        ("model", theirs.model, place.model),
        ("precision", theirs.precision, place.precision),
        ("length", theirs.seq_length, place.length),
        ("batch per device", batch, mine),
        *_served(system, theirs),
    )
    return [
        f"{name} {_said(value)}, not {_said(own)}" if value else f"{name} not stated"
        for name, value, own in pairs
        if value != own
    ]


def _served(system: System, theirs: PublishedFigure) -> list[tuple[str, object, object]]:
    """Of figures through a server: how many requests were in flight, and how long the rows that were computed."""
    if not theirs.served:
        return []
    place = system.place
    rows = [("tokens per sequence", theirs.seq_length, place.mean_tokens)] if theirs.padded else []
    return [("requests in flight", theirs.served, place.concurrency), *rows]


def _said(value: object) -> str:
    return f"{value:g}" if isinstance(value, int | float) else str(value) if value else "known"
