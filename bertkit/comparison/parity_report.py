"""Two runs held against one another: the verdict on their losses, and what may have made them part."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from bertkit.comparison.entries import Entry
from bertkit.comparison.fairness import differences, told
from bertkit.comparison.parity import TOLERANCES, Pair, Verdict, follow
from bertkit.comparison.systems import System
from bertkit.errors import UserError

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
    return found + [f"not known {line}" for line in told(between, "unknown")]


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
