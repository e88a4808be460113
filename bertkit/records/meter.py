"""The one meter: real sequences and tokens, summed over ranks, over the slowest rank's wall time.

Warm-up rule: the first tenth of the updates, at least 1 and at most 10, is not counted; the device is waited for at its
end. Evaluation and checkpoints are paused out and reported apart. Sequences and tokens are counted from the batches
themselves: padding counts as nothing, a packed row as the sequences in it. A rate is a total over a total, never a mean
of rates.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np

from bertkit.engine.interface import Batch, Update, sequence_lengths

WARMUP_RULE = "the first tenth of the updates, at least 1 and at most 10, is not counted"
TIME_BASIS = "host's wall clock, the slowest rank's; the device is waited for before each reading"
SAMPLED = 60.0  # seconds: how often counters are read at least, as those of energy wrap around


def warmup_updates(updates: int) -> int:
    """How many updates at the start are not counted. With a single update, none: it is all there is."""
    return 0 if updates <= 1 else min(10, max(1, updates // 10))


@dataclass(frozen=True)
class Reading:
    """What one rank, or all of them, counted after warm-up; `whole_…` with warm-up and pauses."""

    updates: int
    sequences: int
    tokens: int  # without padding
    slots: int  # with padding
    flops: float  # by formula
    seconds: float  # wall time, pauses taken out
    waiting_for_data: float  # seconds of it
    warmup_seconds: float = 0.0  # without pauses
    whole_sequences: int = 0
    whole_seconds: float = 0.0
    pauses: Mapping[str, float] = field(default_factory=dict)  # seconds by name
    communication: float | None = None  # seconds of `seconds`; None: not known
    joules: float | None = None  # spent in `seconds`; None: not known

    @property
    def padding_efficiency(self) -> float:
        return self.tokens / self.slots if self.slots else float("nan")

    def per_second(self, amount: float) -> float:
        return amount / self.seconds if self.seconds > 0 else float("nan")


def unknown() -> float | None:
    """A counter that tells nothing."""
    return None


@dataclass
class GrowingCounter:
    """How far a counter that only grows went on, in the stretches that count."""

    read: Callable[[], float | None]
    total: float | None = 0.0  # None: it did not tell
    _since: float | None = None

    def start(self) -> None:
        self._since = self.read()
        if self._since is None:
            self.total = None

    def add(self) -> None:
        """Count what went by since `start` or the last `add`."""
        before, self._since = self._since, self.read() if self.total is not None else None
        if self.total is not None:
            self.total = None if before is None or self._since is None else self.total + self._since - before


@dataclass
class Meter:
    """Counts as a run goes. `clock` in seconds; tests give one of their own."""

    warmup: int
    flops: Callable[[Batch], float]  # of a micro-batch
    clock: Callable[[], float] = time.perf_counter
    energy: Callable[[], float | None] = unknown  # joules since some moment
    communication: Callable[[], float | None] = unknown  # seconds since some moment
    pauses: dict[str, float] = field(default_factory=dict)  # seconds by name, over the whole run
    step_seconds: list[float] = field(default_factory=list)  # between two waits for the device, over the updates
    updates_between_waits: int = 0  # the most of them
    _updates: int = 0
    _totals: dict[str, float] = field(
        default_factory=lambda: dict.fromkeys(("sequences", "tokens", "slots", "flops", "whole_sequences"), 0.0)
    )
    _waited: float = 0.0
    _active: float = 0.0
    _warm: float = 0.0
    _since: float | None = None
    _waits: tuple[int, float] | None = None  # (updates, counted seconds) at the last wait
    _sampled: float = 0.0

    def __post_init__(self) -> None:
        self._counters = {"joules": GrowingCounter(self.energy), "communication": GrowingCounter(self.communication)}

    @property
    def warmup_ends(self) -> bool:
        """Whether the update just counted is the warm-up's last: time to wait for the device."""
        return self._updates == self.warmup

    @property
    def trained_seconds(self) -> float:
        """Wall time of training until now on this rank, warm-up too, pauses taken out."""
        return self._warm + self._active

    def timed(self, updates: Iterable[Update]) -> Iterator[Update]:
        """Pass the updates through, noting how long each one was waited for."""
        iterator = iter(updates)
        while True:
            start = self.clock()
            if self._since is None:
                self._since = start
                if self.warmup == 0:
                    self._begin()
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
        lengths = [sequence_lengths(batch) for batch in update.micro_batches]
        self._totals["whole_sequences"] += sum(map(len, lengths))
        if self._updates <= self.warmup:
            self._warm += elapsed
            if self.warmup_ends:
                self._begin()
            return
        self._active += elapsed
        self._totals["slots"] += slots
        for one, batch in zip(lengths, update.micro_batches, strict=True):
            self._totals["sequences"] += len(one)
            self._totals["tokens"] += int(one.sum())
            self._totals["flops"] += self.flops(batch)
        if now - self._sampled > SAMPLED:
            self._sample()

    def _begin(self) -> None:
        """From here on it counts."""
        self._waits = (self._updates, 0.0)
        self._each(GrowingCounter.start)

    def _sample(self) -> None:
        if self._updates >= self.warmup and self._since is not None:
            self._each(GrowingCounter.add)

    def _each(self, do: Callable[[GrowingCounter], None]) -> None:
        for counter in self._counters.values():
            do(counter)
        self._sampled = self.clock()

    @contextmanager
    def pause(self, name: str) -> Iterator[None]:
        """Time that is not training: it is reported under `name` and counts in no rate."""
        self._sample()
        start = self.clock()
        try:
            yield
        finally:
            spent = self.clock() - start
            self.pauses[name] = self.pauses.get(name, 0.0) + spent
            if self._since is not None:
                self._since += spent
                if self._updates >= self.warmup:
                    self._each(GrowingCounter.start)

    def wait(self, synchronize: Callable[[], None]) -> None:
        """Wait for the device, as training time: an asynchronous device may lag behind the last update."""
        start = self.clock()
        synchronize()
        spent = self.clock() - start
        if self._since is not None:
            self._since += spent
        if self._updates <= self.warmup:
            self._warm += spent
            if self.warmup_ends:
                self._begin()
            return
        self._active += spent
        before, self._waits = self._waits, (self._updates, self._active)
        if before is not None and self._updates > before[0]:
            updates = self._updates - before[0]
            self.step_seconds.append((self._active - before[1]) / updates)
            self.updates_between_waits = max(self.updates_between_waits, updates)

    def reading(self) -> Reading:
        """What this rank has counted until now."""
        self._sample()
        totals, counters = self._totals, self._counters
        updates = max(0, self._updates - self.warmup)
        return Reading(
            updates,
            int(totals["sequences"]),
            int(totals["tokens"]),
            int(totals["slots"]),
            totals["flops"],
            self._active,
            self._waited,
            self._warm,
            int(totals["whole_sequences"]),
            self._warm + self._active + sum(self.pauses.values()),
            dict(self.pauses),
            counters["communication"].total if updates else None,
            counters["joules"].total if updates else None,
        )


def over_ranks(reading: Reading, gather: Callable[[np.ndarray], np.ndarray]) -> Reading:
    """The readings of all ranks as one: amounts are summed, times are the slowest rank's. A collective.

    Energy and communication are known where every rank knows them. `pauses` must have the same names everywhere.
    """
    amounts = [reading.sequences, reading.tokens, reading.slots, reading.whole_sequences, reading.flops, reading.joules]
    seconds = [
        reading.seconds, reading.waiting_for_data, reading.warmup_seconds, reading.whole_seconds,
        reading.communication, *reading.pauses.values(),
    ]  # fmt: skip
    row = [math.nan if value is None else value for value in (*amounts, *seconds)]
    rows = gather(np.array([row], np.float64))  # (ranks, amounts and seconds); NaN: this rank does not know
    sums, slowest = rows[:, : len(amounts)].sum(0).tolist(), rows[:, len(amounts) :].max(0).tolist()
    sequences, tokens, slots, whole = map(int, sums[:4])
    return Reading(
        reading.updates,
        sequences,
        tokens,
        slots,
        sums[4],
        slowest[0],
        slowest[1],
        slowest[2],
        whole,
        slowest[3],
        dict(zip(reading.pauses, slowest[5:], strict=True)),
        None if math.isnan(slowest[4]) else slowest[4],
        None if math.isnan(sums[5]) else sums[5],
    )
