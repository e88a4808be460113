"""Learning-rate schedules: pure functions of the update's number."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

ScheduleName = Literal["linear", "polynomial", "constant"]
Decay = Literal["after_warmup", "from_start"]
Schedule = Callable[[int], float]  # number of the update, from 1 -> learning rate


@dataclass(frozen=True)
class Course:
    """Linear from 0 to `peak` over `warmup` updates, then `(1 - progress) ** power` down to `end`.

    As in Hugging Face's `get_polynomial_decay_schedule_with_warmup`, update n uses the value at n - 1: with warm-up
    the first update has rate 0, and `end` would be reached one update after the last. `start` updates of the warm-up
    count as done before the first. With `from_start` progress is counted from the first update as in MLPerf's and
    NVIDIA's code: the rate jumps down where the warm-up ends, and with a `start` the last update has the rate `end`.
    """

    peak: float
    warmup: int
    steps: int
    power: float = 1.0
    end: float = 0.0
    start: int = 0
    decay: Decay = "after_warmup"

    def at(self, step: int) -> float:
        done = step - 1
        if done + self.start < self.warmup:
            return self.peak * (done + self.start) / self.warmup
        if self.decay == "from_start":
            progress = (done + min(self.start, 1)) / self.steps
        else:
            warmup = max(0, self.warmup - self.start)
            progress = (done - warmup) / max(1, self.steps - warmup)
        return float(self.end + (self.peak - self.end) * (1.0 - min(1.0, progress)) ** self.power)


def schedule(
    name: ScheduleName,
    peak: float,
    warmup: int,
    steps: int,
    power: float = 1.0,
    end: float = 0.0,
    start: int = 0,
    decay: Decay = "after_warmup",
) -> Schedule:
    """The schedule called `name`. `linear` is `polynomial` with power 1; `constant` stays at `peak` after warm-up."""
    if name == "constant":
        power, end = 0.0, peak
    elif name == "linear":
        power = 1.0
    return Course(peak, warmup, steps, power, end, start, decay).at
