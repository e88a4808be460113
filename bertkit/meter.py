"""The one meter: real sequences and tokens, summed over ranks, over the slowest rank's wall time.

Warm-up rule: the first tenth of the updates, at least 1 and at most 10, is not counted. Evaluation and checkpoints are
paused out and reported apart. Sequences and tokens are counted from the batches themselves; padding counts as nothing.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np

from bertkit.backend import Update, sequence_lengths

WARMUP_RULE = "the first tenth of the updates, at least 1 and at most 10, is not counted"


def warmup_updates(updates: int) -> int:
    """How many updates at the start are not counted. With a single update, none: it is all there is."""
    return 0 if updates <= 1 else min(10, max(1, updates // 10))


@dataclass(frozen=True)
class Reading:
    """What one rank counted after warm-up."""

    updates: int
    sequences: int
    tokens: int  # without padding
    slots: int  # with padding
    flops: float  # by formula
    seconds: float  # wall time, pauses taken out
    waiting_for_data: float  # seconds of it

    @property
    def padding_efficiency(self) -> float:
        return self.tokens / self.slots if self.slots else float("nan")

    def per_second(self, amount: float) -> float:
        return amount / self.seconds if self.seconds > 0 else float("nan")


@dataclass
class Meter:
    """Counts as a run goes. `clock` in seconds; tests give one of their own."""

    warmup: int
    flops: Callable[[np.ndarray], float]  # lengths of a micro-batch's sequences -> FLOPs
    clock: Callable[[], float] = time.perf_counter
    pauses: dict[str, float] = field(default_factory=dict)  # seconds by name, over the whole run
    step_seconds: list[float] = field(default_factory=list)  # of each counted update
    _updates: int = 0
    _totals: dict[str, float] = field(
        default_factory=lambda: dict.fromkeys(("sequences", "tokens", "slots", "flops"), 0.0)
    )
    _waited: float = 0.0
    _active: float = 0.0
    _since: float | None = None

    def timed(self, updates: Iterable[Update]) -> Iterator[Update]:
        """Pass the updates through, noting how long each one was waited for."""
        iterator = iter(updates)
        while True:
            start = self.clock()
            if self._since is None:
                self._since = start
            update = next(iterator, None)
            if update is None:
                return
            waited = self.clock() - start
            if self._updates >= self.warmup:
                self._waited += waited
            yield update

    def count(self, update: Update, slots: float) -> None:
        """An update is done; `slots`: token places computed for it on this rank."""
        now = self.clock()
        elapsed = now - (self._since if self._since is not None else now)
        self._since = now
        self._updates += 1
        if self._updates <= self.warmup:
            return
        self._active += elapsed
        self.step_seconds.append(elapsed)
        self._totals["slots"] += slots
        for batch in update.micro_batches:
            lengths = sequence_lengths(batch)
            self._totals["sequences"] += len(lengths)
            self._totals["tokens"] += int(lengths.sum())
            self._totals["flops"] += self.flops(lengths)

    @contextmanager
    def pause(self, name: str) -> Iterator[None]:
        """Time that is not training: it is reported under `name` and counts in no rate."""
        start = self.clock()
        try:
            yield
        finally:
            spent = self.clock() - start
            self.pauses[name] = self.pauses.get(name, 0.0) + spent
            if self._since is not None:
                self._since += spent

    def wait(self, synchronize: Callable[[], None]) -> None:
        """Wait for the device, as training time: an asynchronous device may lag behind the last update."""
        start = self.clock()
        synchronize()
        spent = self.clock() - start
        if self._updates > self.warmup:
            self._active += spent
        if self._since is not None:
            self._since += spent

    def reading(self) -> Reading:
        """What this rank has counted until now."""
        totals = self._totals
        return Reading(
            max(0, self._updates - self.warmup),
            int(totals["sequences"]),
            int(totals["tokens"]),
            int(totals["slots"]),
            totals["flops"],
            self._active,
            self._waited,
        )


def over_ranks(reading: Reading, gather: Callable[[np.ndarray], np.ndarray]) -> Reading:
    """The readings of all ranks as one: amounts are summed, times are the slowest rank's. A collective."""
    row = [
        reading.sequences,
        reading.tokens,
        reading.slots,
        reading.flops,
        reading.seconds,
        reading.waiting_for_data,
    ]
    rows = gather(np.array([row], np.float64))  # (ranks, 6)
    sums, slowest = rows.sum(0), rows.max(0)
    return Reading(
        reading.updates,
        int(sums[0]),
        int(sums[1]),
        int(sums[2]),
        float(sums[3]),
        float(slowest[4]),
        float(slowest[5]),
    )
