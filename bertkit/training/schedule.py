"""Learning-rate schedules: pure functions of the update's number."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

ScheduleName = Literal["linear", "polynomial", "constant"]
DecayFrom = Literal["warmup", "start"]
Schedule = Callable[[int], float]  # number of the update, from 1 -> learning rate


def warmup_then_polynomial(
    step: int,
    peak: float,
    warmup: int,
    steps: int,
    power: float,
    end: float = 0.0,
    decay_from: DecayFrom = "warmup",
    start: int = 0,
    warmup_start: int = 0,
) -> float:
    """Linear from 0 to `peak` over `warmup` updates, then `(1 - progress) ** power` down to `end`.

    As in Hugging Face's `get_polynomial_decay_schedule_with_warmup`, update n uses the value at n - 1: with warm-up
    the first update has rate 0, and `end` would be reached one update after the last. With `start` 1 it uses the value
    at n. `decay_from` "start": progress counts from the first update, so the rate falls at once where warm-up ends.
    `warmup_start`: where warm-up begins; negative: so many updates before the first.
    """
    done = step - 1 + start
    warm = done - warmup_start
    if warm < warmup:
        return peak * max(0, warm) / warmup
    before = warmup + warmup_start if decay_from == "warmup" else 0
    progress = min(1.0, max(0, done - before) / max(1, steps - before))
    return float(end + (peak - end) * (1.0 - progress) ** power)


def schedule(
    name: ScheduleName,
    peak: float,
    warmup: int,
    steps: int,
    power: float = 1.0,
    end: float = 0.0,
    decay_from: DecayFrom = "warmup",
    start: int = 0,
    warmup_start: int = 0,
) -> Schedule:
    """The schedule called `name`. `linear` is `polynomial` with power 1; `constant` stays at `peak` after warm-up."""
    if name == "constant":
        power, end = 0.0, peak
    elif name == "linear":
        power = 1.0

    def learning_rate(step: int) -> float:
        return warmup_then_polynomial(step, peak, warmup, steps, power, end, decay_from, start, warmup_start)

    return learning_rate
