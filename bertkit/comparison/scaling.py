"""Scaling efficiency: the rate of one device among many against the rate of one among few, nothing else changed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from bertkit.comparison.entries import Conditions
from bertkit.comparison.figures import Spread
from bertkit.comparison.systems import System

Batch = Literal["the same on each device", "the same over all devices", "different", "not known"]
RATE = "sequences_per_second"


@dataclass(frozen=True)
class Point:
    """One system of a family."""

    system: str
    devices: int
    rate: float  # sequences/s over all devices, mean of the seeds
    sd: float | None
    efficiency: float  # rate a device over that of the fewest devices


@dataclass(frozen=True)
class Family:
    """Systems that differ in the number of devices, fewest first."""

    name: str
    batch: Batch
    points: Sequence[Point]


@dataclass(frozen=True)
class _Rated:
    system: System
    devices: int
    rate: Spread


def families(systems: Sequence[System]) -> list[Family]:
    """Every set of systems with at least two numbers of devices of one kind."""
    groups: dict[str, list[_Rated]] = {}
    for system in systems:
        rate, devices = system.spread(RATE), system.place.devices
        if devices and rate is not None and rate.mean > 0:
            groups.setdefault(system.entries[0].kin, []).append(_Rated(system, devices, rate))
    return [
        _measured(sorted(group, key=lambda one: one.devices))
        for group in groups.values()
        if len({one.devices for one in group}) > 1
    ]


def _measured(group: Sequence[_Rated]) -> Family:
    base, place = group[0], group[0].system.place
    alone = base.rate.mean / base.devices
    points = [
        Point(one.system.name, one.devices, one.rate.mean, one.rate.sd, one.rate.mean / one.devices / alone)
        for one in group
    ]
    name = " ".join(str(part) for part in (place.backend, place.device, place.precision, place.model) if part)
    return Family(name, _batch([one.system.place for one in group]), points)


def _batch(places: Sequence[Conditions]) -> Batch:
    over_all = {place.batch for place in places}
    on_each = {(place.batch or 0) / (place.devices or 1) for place in places}
    if None in over_all:
        return "not known"
    if len(over_all) == 1:
        return "the same over all devices"
    return "the same on each device" if len(on_each) == 1 else "different"
