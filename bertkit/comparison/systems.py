"""Entries that differ in nothing but the seed are one system: what is compared, with a short name of its own."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from bertkit.comparison.entries import Conditions, Entry
from bertkit.comparison.figures import LAST_LOSS, METRIC, Spread, spread
from bertkit.errors import UserError, nearest

RECENT = 20  # updates whose mean is `last loss`: a single batch's loss is noise


@dataclass(frozen=True)
class System:
    """One column of the comparison: all seeds of one setting on one place."""

    name: str
    entries: Sequence[Entry]

    @property
    def place(self) -> Conditions:
        return self.entries[0].place

    @property
    def seeds(self) -> int:
        """How many trained models stand behind its scores."""
        return sum(max(1, len(entry.scores)) for entry in self.entries)

    def metrics(self) -> list[str]:
        """Names, in the records' order."""
        return list(dict.fromkeys(name for entry in self.entries for score in entry.scores for name in score))

    def spread(self, key: str) -> Spread | None:
        """A figure over the seeds that have it."""
        if key.startswith(METRIC):
            name = key.removeprefix(METRIC)
            return spread(score.get(name) for entry in self.entries for score in entry.scores)
        if key == LAST_LOSS.key:
            return spread(_last_loss(entry.losses) for entry in self.entries)
        return spread(entry.figures.get(key) for entry in self.entries)


def _last_loss(losses: np.ndarray) -> float | None:
    return float(np.mean(losses[-RECENT:])) if len(losses) else None


def systems(entries: Iterable[Entry]) -> list[System]:
    """Grouped by identity, in the order in which each first came."""
    groups: dict[str, list[Entry]] = {}
    for entry in entries:
        groups.setdefault(entry.identity, []).append(entry)
    names = _distinct([_group_name(group) for group in groups.values()], list(groups.values()))
    return [System(name, group) for name, group in zip(names, groups.values(), strict=True)]


def find(name: str, among: Sequence[System]) -> System:
    """The system of that name, or the only one whose name or path holds it. Raises UserError naming what there is."""
    exact = [system for system in among if system.name == name]
    near = exact or [
        system
        for system in among
        if name in system.name or any(name.rstrip("/") == str(entry.name) for entry in system.entries)
    ]
    if len(near) == 1:
        return near[0]
    names = [system.name for system in near or among]
    if near:
        raise UserError(f"--baseline {name}: several systems are called so", f"one of: {', '.join(names[:8])}")
    raise UserError(f"--baseline {name}: there is no such system", nearest(name, names))


def _group_name(group: Sequence[Entry]) -> str:
    """The label, or the folder's name without what says the seed, where there are several."""
    if group[0].label:
        return group[0].label
    names = [os.path.basename(entry.name.rstrip("/")) or entry.name for entry in group]
    bare = {
        re.sub(rf"[-_. ]*(seed|s)?[-_. ]*{entry.seed}$", "", name) for entry, name in zip(group, names, strict=True)
    }
    return bare.pop() or names[0] if len(group) > 1 and len(bare) == 1 else names[0]


def _distinct(names: Sequence[str], groups: Sequence[Sequence[Entry]]) -> list[str]:
    """Longer names where two are the same: with what distinguishes the places, then the path, then a number."""
    made = list(names)
    for longer in (_by_place, _by_path):
        for name in {name for name in made if made.count(name) > 1}:
            same = [at for at, other in enumerate(made) if other == name]
            for at, text in zip(same, longer(name, [groups[at] for at in same]), strict=True):
                made[at] = text
    seen: dict[str, int] = {}
    for at, name in enumerate(made):
        seen[name] = seen.get(name, 0) + 1
        if seen[name] > 1:
            made[at] = f"{name} ({seen[name]})"
    return made


def _by_place(name: str, groups: Sequence[Sequence[Entry]]) -> list[str]:
    """The name with those parts of the place in which the groups differ."""
    places = [group[0].place for group in groups]
    parts = [
        [place.backend or "", place.precision or "", f"{place.devices or '?'}x", f"b{place.batch or '?'}"]
        for place in places
    ]
    differing = [at for at in range(4) if len({part[at] for part in parts}) > 1]
    return [" ".join([name, *(part[at] for at in differing)]) for part in parts]


def _by_path(name: str, groups: Sequence[Sequence[Entry]]) -> list[str]:
    return [group[0].name for group in groups]
