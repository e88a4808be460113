"""`bertkit.records.meter` with a clock of its own: what is counted, what is not, and how ranks are put together."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import numpy as np
import pytest

from bertkit.engine.interface import Batch, LayoutKind, Update, sequence_lengths
from bertkit.engine.layouts import lay_out
from bertkit.records.meter import Meter, Reading, over_ranks, warmup_updates
from ragged import batch_of


class Clock:
    """Stands still until told to go on."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now

    def spend(self, seconds: float) -> None:
        self.now += seconds


def squares(batch: Batch) -> float:
    return float((sequence_lengths(batch) ** 2).sum())


def update(step: int, *micro_batches: Sequence[int]) -> Update:
    return Update(step, tuple(batch_of(lengths) for lengths in micro_batches), {"sequences": 99})


def loaded(clock: Clock, updates: Sequence[Update], seconds: float) -> Iterator[Update]:
    for one in updates:
        clock.spend(seconds)
        yield one


def run(meter: Meter, clock: Clock, updates: Sequence[Update], load: float, compute: float, slots: float = 0) -> None:
    for one in meter.timed(loaded(clock, updates, load)):
        clock.spend(compute)
        meter.count(one, slots)


@pytest.mark.parametrize(
    ("updates", "skipped"),
    [(0, 0), (1, 0), (2, 1), (9, 1), (10, 1), (19, 1), (20, 2), (55, 5), (99, 9), (100, 10), (5000, 10)],
)
def test_warmup_rule(updates: int, skipped: int) -> None:
    assert warmup_updates(updates) == skipped


def test_amounts_are_counted_from_the_batches() -> None:
    clock = Clock()
    meter = Meter(1, squares, clock)
    updates = [update(1, [9, 9]), update(2, [3, 4], [5]), update(3, [2], [])]
    run(meter, clock, updates, load=0.5, compute=2.0, slots=20)
    reading = meter.reading()
    assert (reading.updates, reading.sequences, reading.tokens, reading.slots) == (2, 4, 14, 40)
    assert reading.flops == 9 + 16 + 25 + 4
    assert reading.seconds == 5.0
    assert reading.waiting_for_data == 1.0
    assert (reading.warmup_seconds, reading.whole_seconds, reading.whole_sequences) == (2.5, 7.5, 6)
    assert reading.padding_efficiency == 14 / 40
    assert reading.per_second(reading.sequences) == 4 / 5


def test_a_single_update_is_all_there_is() -> None:
    clock = Clock()
    meter = Meter(warmup_updates(1), squares, clock)
    run(meter, clock, [update(1, [3])], load=0.25, compute=1.0, slots=3)
    assert meter.reading() == Reading(1, 1, 3, 3, 9.0, 1.25, 0.25, 0.0, 1, 1.25)


def test_before_the_first_counted_update_there_are_no_rates() -> None:
    clock = Clock()
    meter = Meter(2, squares, clock)
    run(meter, clock, [update(1, [3]), update(2, [3])], load=1.0, compute=1.0, slots=3)
    reading = meter.reading()
    assert reading == Reading(0, 0, 0, 0, 0.0, 0.0, 0.0, 4.0, 2, 4.0)
    assert math.isnan(reading.padding_efficiency)
    assert math.isnan(reading.per_second(1.0))


def test_pauses_are_taken_out_and_reported() -> None:
    clock = Clock()
    meter = Meter(1, squares, clock)
    with meter.pause("evaluation"):  # before the first update
        clock.spend(7.0)
    for one in meter.timed(loaded(clock, [update(step, [4]) for step in range(1, 5)], 0.5)):
        clock.spend(1.0)
        meter.count(one, 4)
        with meter.pause("evaluation"):
            clock.spend(10.0)
        if one.step % 2 == 0:
            with meter.pause("checkpoint"):
                clock.spend(100.0)
    assert meter.reading().seconds == 3 * 1.5
    assert meter.reading().whole_seconds == 4 * 1.5 + 247.0
    assert meter.reading().pauses == meter.pauses
    assert meter.pauses == {"evaluation": 47.0, "checkpoint": 200.0}  # over the whole run, warm-up too


def test_a_pause_that_fails_still_counts_as_one() -> None:
    clock = Clock()
    meter = Meter(0, squares, clock)

    def fail() -> None:
        with meter.pause("evaluation"):
            clock.spend(3.0)
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert meter.pauses == {"evaluation": 3.0}


def test_waiting_for_data_is_part_of_the_time() -> None:
    clock = Clock()
    meter = Meter(0, squares, clock)
    run(meter, clock, [update(1, [1]), update(2, [1])], load=3.0, compute=1.0)
    assert (meter.reading().seconds, meter.reading().waiting_for_data) == (8.0, 6.0)


def test_the_end_of_the_data_is_not_waited_for() -> None:
    clock = Clock()

    def slow_to_end() -> Iterator[Update]:
        yield update(1, [1])
        clock.spend(50.0)

    meter = Meter(0, squares, clock)
    for one in meter.timed(slow_to_end()):
        clock.spend(1.0)
        meter.count(one, 1)
    assert (meter.reading().seconds, meter.reading().waiting_for_data) == (1.0, 0.0)


def test_waiting_for_the_device_is_training_time_after_warmup() -> None:
    clock = Clock()
    meter = Meter(1, squares, clock)
    for one in meter.timed(loaded(clock, [update(1, [1]), update(2, [1]), update(3, [1])], 0.5)):
        clock.spend(1.0)
        meter.count(one, 1)
        meter.wait(lambda: clock.spend(4.0))
    assert meter.reading().seconds == 2 * 5.5
    assert meter.step_seconds == [5.5, 5.5]
    assert meter.reading().warmup_seconds == 5.5


def test_an_asynchronous_device_is_timed_from_wait_to_wait() -> None:
    """Giving work takes no time here; the device needs 2 s an update and is waited for after every second one."""
    clock = Clock()
    meter = Meter(2, squares, clock)
    behind = 0.0

    def synchronize() -> None:
        nonlocal behind
        clock.spend(behind)
        behind = 0.0

    for one in meter.timed([update(step, [1]) for step in range(1, 8)]):
        behind += 2.0
        meter.count(one, 1)
        if meter.warmup_ends or one.step % 2 == 0 or one.step == 7:
            meter.wait(synchronize)
    assert meter.reading().seconds == 5 * 2.0  # what the warm-up still computed went to the warm-up
    assert meter.reading().warmup_seconds == 4.0
    assert meter.step_seconds == [2.0, 2.0, 2.0]
    assert meter.updates_between_waits == 2


def test_compiling_in_the_first_updates_is_in_no_rate() -> None:
    clock = Clock()
    meter = Meter(warmup_updates(20), squares, clock)
    for one in meter.timed([update(step, [4]) for step in range(1, 21)]):
        clock.spend(300.0 if one.step == 1 else 1.0)
        meter.count(one, 4)
    assert meter.reading().seconds == 18.0
    assert meter.reading().per_second(meter.reading().sequences) == 1.0
    assert meter.reading().whole_seconds == 319.0


def test_a_short_last_batch_counts_as_what_it_holds() -> None:
    clock = Clock()
    meter = Meter(1, squares, clock)
    run(meter, clock, [update(1, [3] * 8), update(2, [3] * 8), update(3, [3] * 2)], load=0, compute=1.0)
    assert meter.reading().sequences == 10


def test_rates_are_a_total_over_a_total() -> None:
    clock = Clock()
    meter = Meter(1, squares, clock)
    for one, seconds in zip(meter.timed([update(step, [5]) for step in range(4)]), (9.0, 1.0, 1.0, 4.0), strict=False):
        clock.spend(seconds)
        meter.count(one, 5)
    reading = meter.reading()
    assert reading.per_second(reading.sequences) == 3 / 6.0  # the mean of the three rates would be 0.75


@pytest.mark.parametrize("layout", ["padded", "packed", "unpadded"])
def test_packed_rows_count_as_what_they_hold(layout: LayoutKind) -> None:
    """The layout changes the places computed, never the sequences and tokens."""
    lengths = [9, 3, 3, 2, 2]
    meter = Meter(0, squares, Clock())
    for one in meter.timed([update(1, lengths)]):
        meter.count(one, lay_out(one.micro_batches[0], layout).slots)
    reading = meter.reading()
    assert (reading.sequences, reading.tokens) == (5, 19)
    assert reading.slots == {"padded": 45, "packed": reading.slots, "unpadded": 19}[layout]
    assert 19 <= reading.slots <= 45


class Counting:
    """A counter of joules that goes on by so much a second of the clock."""

    def __init__(self, clock: Clock, rate: float) -> None:
        self.clock, self.rate, self.silent = clock, rate, False

    def __call__(self) -> float | None:
        return None if self.silent else self.rate * self.clock.now


def test_energy_is_that_of_the_counted_seconds() -> None:
    clock = Clock()
    meter = Meter(1, squares, clock, energy=Counting(clock, 50.0))
    for one in meter.timed(loaded(clock, [update(step, [4]) for step in range(1, 5)], 0.5)):
        clock.spend(1.0)
        meter.count(one, 4)
        with meter.pause("evaluation"):
            clock.spend(10.0)
    assert meter.reading().seconds == 4.5
    assert meter.reading().joules == 4.5 * 50.0
    assert meter.reading().communication is None  # nobody told of it


def test_energy_that_stops_telling_is_unknown_not_less() -> None:
    clock = Clock()
    told = Counting(clock, 50.0)
    meter = Meter(0, squares, clock, energy=told)
    for one in meter.timed(loaded(clock, [update(step, [4]) for step in range(1, 5)], 0.5)):
        clock.spend(40.0)
        meter.count(one, 4)
        told.silent = one.step == 2  # later it tells again
    assert meter.reading().joules == 162.0 * 50.0
    told.silent = True
    assert meter.reading().joules is None
    told.silent = False
    assert meter.reading().joules is None
    assert Meter(0, squares, clock).reading().joules is None


def test_ranks_sum_amounts_and_take_the_slowest_time() -> None:
    pauses = {"evaluation": 7.0, "checkpoint": 1.0}
    mine = Reading(3, 10, 100, 120, 1e15, 2.0, 0.5, 1.0, 15, 11.0, pauses, 0.25, 80.0)
    others = np.array([
        [20, 300, 330, 25, 2e15, 70.0, 1.0, 0.75, 3.0, 12.0, 0.5, 6.0, 2.0],
        [5, 50, 50, 6, 5e14, 0.0, 4.0, 0.0, 0.5, 9.0, 0.125, 5.0, 0.5],
    ])  # fmt: skip
    seen: list[np.ndarray] = []

    def gather(rows: np.ndarray) -> np.ndarray:
        seen.append(rows)
        return np.concatenate([rows, others])

    slowest = {"evaluation": 7.0, "checkpoint": 2.0}
    assert over_ranks(mine, gather) == Reading(
        3, 35, 450, 500, 3.5e15, 4.0, 0.75, 3.0, 46, 12.0, slowest, 0.5, 150.0
    )  # fmt: skip
    assert seen[0].shape == (1, 13)
    assert over_ranks(mine, lambda rows: rows) == mine


def test_what_one_rank_does_not_know_nobody_knows() -> None:
    mine = Reading(3, 10, 100, 120, 1e15, 2.0, 0.5, 1.0, 15, 11.0, {}, 0.25, 80.0)
    other = np.array([[1, 1, 1, 1, 1.0, np.nan, 1.0, 0.0, 0.0, 1.0, np.nan]])
    both = over_ranks(mine, lambda rows: np.concatenate([rows, other]))
    assert (both.joules, both.communication) == (None, None)
    assert both.sequences == 11
