"""What differs between systems: settings that must match, settings that are unknown, and other differences."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from bertkit.comparison.systems import System
from bertkit.records.fields import plain_names

Weight = Literal["unfair", "unknown", "noted"]
WEIGHTS: tuple[Weight, ...] = ("unfair", "unknown", "noted")
PEAKS_APART = 0.1  # of a chip's measured rate, beyond which MFU says nothing
SHOWN = 4  # names or values of a list; the rest is counted


@dataclass(frozen=True)
class Value:
    """One of the values that a fact has."""

    text: str
    systems: tuple[str, ...]


@dataclass(frozen=True)
class Difference:
    """One thing that is not the same in all systems."""

    field: str
    words: str
    weight: Weight
    values: Sequence[Value]
    unknown: tuple[str, ...] = ()  # systems whose records do not say

    @property
    def name(self) -> str:
        """The words without their explanation."""
        return re.split(r"[:;,]| \(", self.words)[0]

    def __str__(self) -> str:
        told = [f"{value.text} ({names(value.systems)})" for value in self.values[:SHOWN]]
        told += [f"{len(self.values) - SHOWN} other values"] if len(self.values) > SHOWN else []
        told += [f"unknown ({names(self.unknown)})"] if self.unknown else []
        return f"{self.words}: {'; '.join(told)}"


def names(of: Sequence[str]) -> str:
    more = f" and {len(of) - SHOWN} more" if len(of) > SHOWN else ""
    return ", ".join(of[:SHOWN]) + more


def differences(systems: Sequence[System]) -> list[Difference]:
    """Differing settings first, then unknown ones, then notes. Of a single system only what parts its own records."""
    if len(systems) < 2:
        return _peaks(systems)
    found = []
    for field, words in plain_names().items():
        seen = [(system.name, system.entries[0].facts.get(field)) for system in systems]
        found += _difference(field, words, seen, "unfair")
    for metric in dict.fromkeys(name for system in systems for name in system.metrics()):
        having = [system for system in systems if metric in system.metrics()]
        seen = [(system.name, system.entries[0].units.get(metric)) for system in having]
        found += [one for one in _difference(f"unit_{metric}", f"unit of {metric}", seen, "unfair") if one.values[1:]]
    found += _notes(systems)
    return sorted(found, key=lambda one: WEIGHTS.index(one.weight))


def told(found: Iterable[Difference], weight: Weight) -> list[str]:
    """Lines on those of one weight. What the same records leave unsaid stands in one line."""
    lines: list[str] = []
    unsaid: dict[tuple[str, ...], list[str]] = {}
    for one in found:
        if one.weight == "unknown" and weight == "unknown" and len(one.values) <= 1:
            unsaid.setdefault(one.unknown, []).append(one.name)
        elif one.weight == weight:
            lines.append(str(one))
    return [*lines, *(f"{names(who)}: {', '.join(what)}" for who, what in unsaid.items())]


def silent(published: Sequence[str]) -> Difference:
    """What published figures leave unsaid, as one line: their rows tell the rest."""
    return Difference("published", "not stated by published figures", "unknown", [], tuple(published))


def refused(found: Iterable[Difference]) -> list[Difference]:
    """Those for which `--strict` refuses: what is not known cannot be called equal."""
    return [one for one in found if one.weight != "noted"]


def _difference(field: str, words: str, seen: Sequence[tuple[str, Any]], weight: Weight) -> list[Difference]:
    """None where all agree or no record says anything: what applies to none is no difference."""
    values: dict[str, list[str]] = {}
    for name, value in seen:
        if value is not None:
            values.setdefault(_identifying(value), []).append(name)
    unknown = tuple(name for name, value in seen if value is None)
    if not values or (len(values) == 1 and not unknown):
        return []
    if len(values) == 1 and weight == "unfair":
        weight = "unknown"
    return [
        Difference(field, words, weight, [Value(_shown(text), tuple(who)) for text, who in values.items()], unknown)
    ]


def _identifying(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:g}" if isinstance(value, float) and float(f"{value:g}") == value else str(value)


def _shown(text: str) -> str:
    """A hash by its first characters, an empty text as such."""
    return f"{text[:8]}…" if re.fullmatch(r"[0-9a-f]{64}", text) else text or "none"


def _notes(systems: Sequence[System]) -> list[Difference]:
    """What may differ, and is worth knowing beside the figures."""
    tables: list[tuple[str, str, list[Any]]] = [
        ("precision", "precision", [system.place.precision for system in systems]),
        ("devices", "number of devices", [system.place.devices for system in systems]),
        ("hosts", "number of hosts", [system.place.hosts for system in systems]),
        ("kind", "kind of record", [system.place.kind for system in systems]),
        ("seeds", "number of seeds", [system.seeds for system in systems]),
        ("loss_scaling", "loss scaling of fp16", [system.entries[0].loss_scaling for system in systems]),
        ("step_of", "what step times are of", [system.entries[0].step_of for system in systems]),
    ]
    for package in ("bertkit", "torch"):
        versions = [{entry.versions.get(package) for entry in system.entries} - {None} for system in systems]
        tables.append(
            (f"version_{package}", f"version of {package}", [", ".join(sorted(map(str, v))) or None for v in versions])
        )
    made = []
    for field, words, values in tables:
        seen = [(system.name, value) for system, value in zip(systems, values, strict=True)]
        made += [one for one in _difference(field, words, seen, "noted") if len(one.values) > 1]
    return made + _peaks(systems)


def _peaks(systems: Sequence[System]) -> list[Difference]:
    """Where one chip was measured at rates that differ by more than a tenth: other work ran beside one of them."""
    found: dict[tuple[str, str], list[tuple[str, float]]] = {}
    for system in systems:
        for entry in system.entries:
            if entry.place.device and entry.place.precision and entry.peak:
                found.setdefault((entry.place.device, entry.place.precision), []).append((system.name, entry.peak))
    made = []
    for (device, precision), seen in found.items():
        rates = [rate for _, rate in seen]
        if max(rates) > (1 + PEAKS_APART) * min(rates):
            values = [Value(f"{rate / 1e9:.4g}", (name,)) for name, rate in seen]
            words = f"measured peak of {device} in {precision}, GFLOP/s, the basis of MFU: MFU cannot be compared"
            made.append(Difference("peak_flops", words, "noted", values))
    return made
