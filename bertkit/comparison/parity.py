"""Whether two loss curves of one seed are the same, update by update, and where they part if not.

What is allowed grows with the updates: a rounding that differs in one update is carried on by every later one.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

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
    """What holding two curves against one another found."""

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
    """Hold the updates that both curves have against one another, by the coarser tolerance of the two precisions."""
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
