"""One case measured: training through the very loop of `bertkit train`, inference call by call.

Both count with the meter, so the rules are those of training: real tokens, summed over ranks, over the slowest rank's
wall time, the first tenth of the updates or calls left out. Where --seconds fixes the amount, a few trial updates or
calls come first; they count nowhere.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from bertkit.bench.workload import Workload
from bertkit.console import Counter, Display
from bertkit.data.features import Features
from bertkit.data.sampler import Sampler, by_length, updates
from bertkit.distributed.world import World
from bertkit.engine.flops import forward_flops, of_batch
from bertkit.engine.interface import Engine, Update, sequence_lengths
from bertkit.model.config import ModelConfig
from bertkit.records.energy import Energy
from bertkit.records.meter import WARMUP_RULE, Meter, Reading, over_ranks, warmup_updates
from bertkit.training import calibration
from bertkit.training.callbacks.base import Callback
from bertkit.training.loop import Plan, every, fit, make_meter
from bertkit.training.run import Run, UpdateMetrics

FEWEST, MOST = 4, 10_000  # updates or calls of a case that --seconds may choose; of 4, 3 are counted
TRIALS = 3  # updates or calls before, to choose by; fewer where a tenth of the time is over
RULES = {
    "warm-up": WARMUP_RULE.replace("updates", "updates or calls"),
    "trials": f"without --steps, up to {TRIALS} updates or calls come first, to choose their number; none counts",
    "tokens": "without padding; token ids are random unless the lengths are a task's own",
    "filled": "padding efficiency: real tokens over the token places computed for them",
    "training": "the loop of `bertkit train`: dropout on, gradient clipping and optimizer included",
    "update time": "wall time between two waits for the device over the updates between them, at most 10; first rank",
    "latency": "host clock around each call, NumPy batch to NumPy logits; making the batch is not in it; of all ranks",
    "several processes": "amounts are summed over them, the time is the slowest one's",
    "mfu": "model FLOPs by formula (training: 3 x forward) over the device's rate; neither padding nor recomputation "
    "counts; the rate is the best measured so far, at the start and after each case; none is told above it",
}


@dataclass(frozen=True)
class Amount:
    """How much of a case is computed."""

    steps: int  # updates or calls with warm-up; 0: as `seconds` says
    seconds: float


@dataclass(frozen=True)
class Measured:
    """What one case gave, over all ranks."""

    reading: Reading
    times: list[float]  # seconds: of updates (means between two waits), or of every call of every rank
    waits: int  # updates between two waits, at most; 1 for calls
    steps: int  # updates or calls, warm-up in it
    warmup: int
    loss: float | None = None


class _Follower(Callback):
    """Shows how far the training loop is, and remembers the last loss."""

    def __init__(self, bar: Counter) -> None:
        self.bar = bar
        self.loss: float | None = None

    def on_updates(self, run: Run, updates: Sequence[UpdateMetrics]) -> None:
        self.loss = updates[-1].loss
        self.bar.to(updates[-1].step)


def train_case(
    engine: Engine, model: ModelConfig, work: Workload, batch_size: int, micro: int, rate: float, seed: int,
    amount: Amount, world: World, display: Display, energy: Energy,
) -> Measured:  # fmt: skip
    """Updates of `batch_size` sequences on each rank. A collective."""
    sampler = Sampler(len(work.features), batch_size * world.size, seed)
    shares = functools.partial(updates, work.features, sampler, work.head.kind)
    ranks = world.rank, world.size, micro

    def trial(update: Update) -> None:
        float(engine.train_step(update, rate)["loss"])
        engine.synchronize()

    steps = amount.steps or _steps(engine, trial, shares(1, TRIALS, *ranks), amount.seconds)
    warmup = warmup_updates(steps)
    meter = make_meter(model, work.head, engine, energy, warmup)
    plan = Plan(
        steps, lambda step: rate, max(1, warmup), every(steps), every(steps)
    )  # a wait falls on the end of the warm-up
    _meet(engine)
    with display.progress("training", steps) as bar:
        follower = _Follower(bar)
        fit(engine, shares(1, steps, *ranks), plan, meter, [follower], Run(world=world, steps=steps))
    reading = over_ranks(meter.reading(), engine.gather)
    return Measured(reading, meter.step_seconds, meter.updates_between_waits, steps, warmup, follower.loss)


def infer_case(
    engine: Engine, model: ModelConfig, work: Workload, batch_size: int, seed: int,
    amount: Amount, world: World, display: Display, energy: Energy,
) -> Measured:  # fmt: skip
    """Calls of `batch_size` sequences on each rank. A collective."""
    stream = calls(work.features, batch_size, seed, world)
    if (without := calibration.wanted(engine)) is not None:
        calibration.calibrate(without, work.features, display)
    steps = amount.steps or _steps(engine, lambda u: engine.predict(u.micro_batches[0]), stream, amount.seconds)
    meter = Meter(
        warmup_updates(steps),
        functools.partial(of_batch, forward_flops, model, work.head),
        energy=energy.joules,
        communication=lambda: 0.0,  # calls exchange nothing
    )
    spent: list[float] = []
    seen: list[np.ndarray] = []  # lengths of each call's sequences
    _meet(engine)
    with display.progress("predicting", steps) as bar:
        for update in meter.timed(itertools.islice(stream, steps)):
            start = time.perf_counter()
            engine.predict(update.micro_batches[0])
            spent.append(time.perf_counter() - start)
            seen.append(sequence_lengths(update.micro_batches[0]))
            meter.count(update, 0)  # a call's token places are asked for below, off the clock
            bar.add(1)
    places = sum(engine.slots(lengths) for lengths in seen[meter.warmup :])
    reading = over_ranks(dataclasses.replace(meter.reading(), slots=places), engine.gather)
    return Measured(reading, list(engine.gather(np.array(spent[meter.warmup :]))), 1, steps, meter.warmup)


def calls(features: Features, batch_size: int, seed: int, world: World) -> Iterator[Update]:
    """This rank's batches without end: grouped by length as `bertkit predict` does, visited in random order.

    The order is random because by length the warm-up would be the longest sequences, and the rest not the data's.
    """
    groups = list(by_length(features.sizes, batch_size))

    def everyones() -> Iterator[np.ndarray]:
        for turn in itertools.count():
            key = np.random.SeedSequence([seed, turn])
            yield from (groups[place] for place in np.random.Generator(np.random.PCG64(key)).permutation(len(groups)))

    for number, examples in enumerate(itertools.islice(everyones(), world.rank, None, world.size), 1):
        yield Update(number, (features.batch(examples),), {})


def _steps(engine: Engine, do: Callable[[Update], object], trials: Iterator[Update], seconds: float) -> int:
    """How many fill the time, by a few trials; the same on every rank."""
    spent: list[float] = []
    for update in itertools.islice(trials, TRIALS):
        start = time.perf_counter()
        do(update)
        spent.append(float(engine.gather(np.array([time.perf_counter() - start])).max()))
        if sum(spent) > seconds / 10:
            break
    usual = float(np.mean(spent[1:])) if len(spent) > 1 else spent[0]  # the first makes kernels
    return int(np.clip(seconds / max(usual, 1e-9), FEWEST, MOST))


def _meet(engine: Engine) -> None:
    """Start the clock on all ranks together."""
    engine.synchronize()
    engine.gather(np.zeros(1))
