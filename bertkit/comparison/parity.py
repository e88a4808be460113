"""Whether two runs of one seed follow the same loss curve, update by update; where they part if not, and why.

What is allowed grows with the updates: a rounding that differs in one update is carried on by every later one.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from bertkit.comparison.entries import Entry
from bertkit.comparison.fairness import differences, told
from bertkit.comparison.systems import System
from bertkit.errors import UserError

SEEN = 1e-6  # of the loss: more than the order of sums made in fp32 where it was measured (docs/compare.md)


@dataclass(frozen=True)
class Tolerance:
    """How far two losses may be apart: `floor` + (`start` + `growth` · updates / 100) · loss."""

    start: float
    growth: float
    floor: float  # for losses near zero
    reason: str

    def allowed(self, step: int, loss: float) -> float:
        return self.floor + (self.start + self.growth * step / 100) * abs(loss)


# docs/compare.md has the measurements behind these. All are for losses without dropout, or with the same masks.
TOLERANCES: Mapping[str, Tolerance] = {
    "fp32": Tolerance(5e-6, 2e-5, 1e-6, "sums in another order; ten times and more what layouts and ranks do on a CPU"),
    "tf32": Tolerance(2.5e-4, 1.25e-3, 2e-5, "an eighth of bf16's, whose mantissa is 3 bits shorter; not yet measured"),
    "bf16": Tolerance(
        2e-3, 1e-2, 1e-4, "8 bits of mantissa; three times what layouts, and fp32 beside it, do on a CPU"
    ),
    "fp16": Tolerance(2.5e-4, 1.25e-3, 2e-5, "an eighth of bf16's, whose mantissa is 3 bits shorter; not yet measured"),
}


@dataclass(frozen=True)
class Pair:
    """Two losses at one update."""

    step: int
    first: float | None  # None: there is no finite loss
    second: float | None
    allowed: float

    @property
    def apart(self) -> float:
        if self.first is None or self.second is None:
            return 0.0 if self.first is self.second else math.inf
        return abs(self.first - self.second)

    @property
    def relative(self) -> float:
        """Of the larger loss."""
        return self.apart / max(abs(self.first or 0.0), abs(self.second or 0.0)) if self.apart else 0.0

    @property
    def share(self) -> float:
        """Of what is allowed; above 1 is beyond it."""
        return self.apart / self.allowed


@dataclass(frozen=True)
class Verdict:
    """What the comparison of two curves found."""

    precision: str  # whose tolerance was taken
    tolerance: Tolerance
    steps: int  # updates that both have
    lengths: tuple[int, int]
    parting: Pair | None  # the first update beyond tolerance
    seen: Pair | None  # the first update at which they differ by more than `SEEN`
    furthest: Pair | None  # the update with the largest share of what is allowed

    @property
    def holds(self) -> bool:
        return self.parting is None and self.lengths[0] == self.lengths[1] == self.steps


Curve = Mapping[int, float | None]  # update -> loss


def follow(first: Curve, second: Curve, precisions: Sequence[str]) -> Verdict:
    """Compare the updates that both curves have, by the coarser tolerance of the two precisions."""
    name = max(precisions, key=lambda name: TOLERANCES[name].start)
    tolerance = TOLERANCES[name]
    both = sorted(first.keys() & second.keys())
    pairs = [_pair(step, first[step], second[step], tolerance) for step in both]
    return Verdict(
        name,
        tolerance,
        len(both),
        (len(first), len(second)),
        next((pair for pair in pairs if pair.share > 1), None),
        next((pair for pair in pairs if pair.relative > SEEN), None),
        max(pairs, key=lambda pair: pair.share, default=None),
    )


def _pair(step: int, first: float | None, second: float | None, tolerance: Tolerance) -> Pair:
    a, b = (value if value is not None and math.isfinite(value) else None for value in (first, second))
    return Pair(step, a, b, tolerance.allowed(step, max(abs(a or 0.0), abs(b or 0.0))))


# ---- the verdict on two runs, and what may have made them part ----

QUIET = 20  # updates equal to the last digits, after which another setting is no likely cause


@dataclass(frozen=True)
class Parity:
    """The verdict on two runs, and what to know of them."""

    names: tuple[str, str]
    verdict: Verdict
    reasons: Sequence[str]  # what differs between them, in words

    def to_mapping(self) -> dict[str, Any]:
        return {"schema": 1, "kind": "parity", "holds": self.verdict.holds, **dataclasses.asdict(self)}


def hold(first: Entry, second: Entry, steps: int | None = None) -> Parity:
    """Whether two runs follow the same curve. Raises UserError where one has no losses, or no tolerance is known."""
    for one in (first, second):
        if not len(one.losses):
            raise UserError(f"{one.name}: has no losses by update", "give the record of a training run")
        if one.place.precision not in TOLERANCES:
            raise UserError(
                f"{one.name}: there is no tolerance for precision {one.place.precision}",
                f"there is one for {', '.join(TOLERANCES)}",
            )
    curves = [_curve(one.losses, steps) for one in (first, second)]
    verdict = follow(curves[0], curves[1], [str(one.place.precision) for one in (first, second)])
    return Parity((first.name, second.name), verdict, _reasons(first, second))


def _curve(losses: np.ndarray, steps: int | None) -> dict[int, float | None]:
    return {step: None if math.isnan(loss) else float(loss) for step, loss in enumerate(losses[:steps], 1)}


def _reasons(first: Entry, second: Entry) -> list[str]:
    found = [f"the seeds differ: {first.seed} and {second.seed}"] if first.seed != second.seed else []
    rates = [one.facts.get(name) for one in (first, second) for name in ("hidden_dropout", "attention_dropout")]
    here, there = ((one.place.backend, one.place.devices, one.layout) for one in (first, second))
    if any(rates) and here != there:
        found.append(
            "dropout draws its masks by backend, layout and rank, so only runs without it agree to rounding: "
            "--set model.hidden_dropout=0 --set model.attention_dropout=0"
        )
    pair = [System(name, [one]) for name, one in zip("AB", (first, second), strict=True)]
    between = differences(pair)
    found += told(between, "unfair") + [str(one) for one in between if one.field == "precision"]
    return found + [f"unknown: {line}" for line in told(between, "unknown")]


def lines(found: Parity) -> list[str]:
    """What differs, then the verdict and the figures behind it."""
    return [f"A: {found.names[0]}", f"B: {found.names[1]}", *found.reasons, *sentences(found.verdict)]


def sentences(verdict: Verdict) -> list[str]:
    """The verdict, then its grounds."""
    said = []
    if verdict.parting is not None:
        said.append(f"parity fails at update {verdict.parting.step}: {_told(verdict.parting)}")
    if verdict.lengths[0] != verdict.lengths[1]:
        said.append(f"parity fails: A has {verdict.lengths[0]:,} updates, B has {verdict.lengths[1]:,}")
    if verdict.holds and verdict.furthest is not None:
        said.append(f"parity holds over {verdict.steps:,} updates; nearest to the limit at update {_near(verdict)}")
    said += _first_seen(verdict)
    rule = verdict.tolerance
    said.append(
        f"tolerance in {verdict.precision}: {rule.start:g} of the loss and {rule.growth:g} more every 100 updates, "
        f"and {rule.floor:g}: {rule.reason}"
    )
    return said


def _first_seen(verdict: Verdict) -> list[str]:
    """When a difference first showed, where that is before it counted."""
    seen, parting = verdict.seen, verdict.parting
    if seen is None or (parting is not None and seen.step >= parting.step):
        return []
    line = f"the losses first differ beyond their last digits at update {seen.step}, by {seen.relative:.1e} of the loss"
    if parting is not None and seen.step > QUIET:
        line += (
            "; another setting shows within a few updates, so this looks like rounding that the training itself "
            f"amplifies, as a high learning rate does (--steps {seen.step - 1} looks at the updates before)"
        )
    return [line]


def _near(verdict: Verdict) -> str:
    found = verdict.furthest
    return "" if found is None else f"{found.step}: {_told(found)}"


def _told(pair: Pair) -> str:
    if pair.first is None or pair.second is None:
        return f"A {_loss(pair.first)}, B {_loss(pair.second)}"
    return (
        f"A {_loss(pair.first)}, B {_loss(pair.second)}, apart by {pair.apart:.2e} "
        f"({pair.relative:.1e} of the loss); {pair.allowed:.2e} is allowed"
    )


def _loss(value: float | None) -> str:
    return "not finite" if value is None else f"{value:.7g}"
