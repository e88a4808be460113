"""What is compared, in one table, and how several seeds become one figure: mean, standard deviation and n.

A gap stays a gap: nothing is computed from what a record does not hold, and the best of n is never the score.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

GAP = "–"
Topic = Literal["model", "speed", "time", "result"]


@dataclass(frozen=True)
class Figure:
    """One measured quantity of a record."""

    key: str  # in JSON and CSV
    heading: str
    unit: str
    topic: Topic
    path: str  # where a record holds it, dotted
    scale: float = 1.0  # from the record's unit to `unit`
    ratio: bool = False  # whether it is also shown against the baseline
    spread: bool = False  # whether tables show its deviation; files have that of all


PARAMETERS = Figure("parameters", "parameters", "million", "model", "model.parameters", 1e-6)
DEV_SECONDS = Figure(
    "dev_seconds", "time for the dev set", "s", "time", "callbacks.distillation.dev_seconds", spread=True
)
PER_EXAMPLE = Figure("dev_example", "time per example", "ms", "time", "", spread=True)  # computed
FIGURES = (
    PARAMETERS,
    Figure(
        "sequences_per_second", "sequences/s", "1/s", "speed", "throughput.sequences_per_second", ratio=True,
        spread=True,
    ),
    Figure(
        "sequences_per_second_per_device", "per device", "1/s", "speed", "throughput.sequences_per_second_per_device",
        ratio=True, spread=True,
    ),
    Figure("tokens_per_second", "tokens/s", "1/s", "speed", "throughput.tokens_per_second", ratio=True),
    Figure(
        "tokens_per_second_per_device", "per device", "1/s", "speed", "throughput.tokens_per_second_per_device",
        ratio=True,
    ),
    Figure("sequences_per_second_whole", "whole run", "1/s", "speed", "throughput.sequences_per_second_whole"),
    Figure("padding_efficiency", "padding efficiency", "%", "speed", "throughput.padding_efficiency", 100.0),
    Figure("mfu", "MFU", "%", "speed", "throughput.mfu", 100.0),
    Figure("step_p50", "step p50", "ms", "time", "time.step_seconds.p50", 1e3),
    Figure("step_p99", "p99", "ms", "time", "time.step_seconds.p99", 1e3),
    Figure("training_seconds", "training", "s", "time", "time.training_seconds"),
    Figure("data_seconds", "data", "s", "time", "time.waiting_for_data_seconds"),
    Figure("compute_seconds", "compute", "s", "time", "time.compute_seconds"),
    Figure("communication_seconds", "all-reduce time", "s", "time", "time.communication_seconds"),
    Figure("evaluation_seconds", "evaluation", "s", "time", "time.evaluation_seconds"),
    Figure("checkpoint_seconds", "checkpoints", "s", "time", "time.checkpoint_seconds"),
    Figure("peak_memory", "memory", "GiB", "time", "memory.peak_bytes_per_device", 2.0**-30),
    Figure("energy", "energy", "J", "time", "energy.joules"),
    DEV_SECONDS,
    PER_EXAMPLE,
)  # fmt: skip
LAST_LOSS = Figure("last_loss", "last loss", "", "result", "")
METRIC = "metric."  # keys of what the task measures
# Metrics that compare a student with its teacher, in words; they say nothing of other systems.
BY_TEACHER = {
    "agreement": "agreement with the teacher",
    "teacher_kl": "KL to the teacher (nats)",
    "teacher_mse": "squared error to the teacher",
    "state_loss": "loss by the teacher's states",
}


def metric(name: str) -> Figure:
    base = by_teacher(name)
    return Figure(f"{METRIC}{name}", name.replace(base, BY_TEACHER[base], 1) if base else name, "", "result", "")


def by_teacher(name: str) -> str:
    """Which of BY_TEACHER the metric is, of whatever part of the dev set; "": none."""
    return next((base for base in BY_TEACHER if name == base or name.startswith(f"{base}_")), "")


@dataclass(frozen=True)
class Spread:
    """A figure over the seeds that have it."""

    mean: float
    sd: float | None  # of the sample; None for a single seed
    n: int


def spread(values: Iterable[float | None]) -> Spread | None:
    """None where no seed has the figure. Values that are not finite count as not there."""
    there = [value for value in values if value is not None and math.isfinite(value)]
    if not there:
        return None
    return Spread(statistics.fmean(there), statistics.stdev(there) if len(there) > 1 else None, len(there))


@dataclass(frozen=True)
class Against:
    """A system's figure against the baseline's."""

    ratio: float | None  # None where the baseline is 0
    difference: float
    within_spread: bool  # the means are no further apart than the two standard deviations together


def against(mine: Spread | None, base: Spread | None) -> Against | None:
    """None where either side has no figure."""
    if mine is None or base is None:
        return None
    apart = mine.mean - base.mean
    near = mine.sd is not None and base.sd is not None and abs(apart) <= mine.sd + base.sd
    return Against(mine.mean / base.mean if base.mean else None, apart, near)


def digits(value: float) -> str:
    """Three digits or more."""
    size = abs(value)
    return f"{value:,.0f}" if size >= 100 else f"{value:.1f}" if size >= 10 else f"{value:.3g}"


def with_spread(found: Spread | None, decimals: int | None = None) -> str:
    """``812 ± 13``; a gap is –. `decimals`: of both, for scores; else as the mean has, one digit at least."""
    if found is None:
        return GAP
    mean = digits(found.mean) if decimals is None else f"{found.mean:.{decimals}f}"
    if found.sd is None:
        return mean
    places = len(mean.partition(".")[2]) if decimals is None else decimals
    sd = f"{found.sd:,.{places}f}"
    if decimals is None and found.sd and not sd.strip("0.,"):
        sd = f"{found.sd:.1g}"
    return f"{mean} ± {sd}"


def as_ratio(found: Against | None) -> str:
    """``1.95×``, with ≈ before it where the spread of the seeds explains the difference."""
    if found is None or found.ratio is None:
        return GAP
    return f"{'≈' if found.within_spread else ''}{found.ratio:.2f}×"
