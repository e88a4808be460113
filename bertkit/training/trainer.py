"""The training loop and the evaluation loop, each readable from top to bottom.

Legend: N sequences, T tokens of them, C outputs of the head.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from bertkit.console import Display
from bertkit.data.features import Features
from bertkit.data.sampler import by_length
from bertkit.data.tasks import Task
from bertkit.data.tasks.task import Answered, AnswerRules, Part
from bertkit.distributed.world import World
from bertkit.engine.interface import OUTPUTS, Arrays, Engine, Scalars, Update
from bertkit.errors import UserError
from bertkit.model.config import Head
from bertkit.prefetch import ahead
from bertkit.records.meter import Meter
from bertkit.training.schedule import Schedule

When = Callable[[int], bool]  # number of the update -> whether it is time


def every(updates: int) -> When:
    return lambda step: step % updates == 0


@dataclass(frozen=True)
class Plan:
    """What happens when, in updates. The last one is evaluated and saved in any case."""

    steps: int  # the run's last update
    learning_rate: Schedule
    log_every: int
    evaluates: When
    saves: When


@dataclass(frozen=True)
class Logged:
    """One update's numbers, on the host."""

    step: int
    learning_rate: float
    loss: float
    grad_norm: float  # not finite where the update was left out for an overflow
    loss_scale: float | None = None  # where the loss is scaled


class Watch(Protocol):
    """Who follows a run: shows it, logs it, keeps it."""

    def logged(self, updates: list[Logged]) -> None:
        """Some updates are done; called every `log_every` updates and at the last one."""

    def evaluate(self, step: int) -> bool:
        """Time to score the model. Returns whether it is the best so far, and so to be kept."""

    def save(self, step: int) -> None:
        """Time to keep a checkpoint."""

    def stop_requested(self) -> bool:
        """Whether to end after this update, as on SIGTERM; the last `save` is still called."""

    def reached(self) -> bool:
        """Whether the last evaluation reached what was aimed at, so that the run is done; it is saved first."""


def fit(
    engine: Engine,
    updates: Iterable[Update],
    plan: Plan,
    meter: Meter,
    watch: Watch,
    profiled: Callable[[Iterator[Update]], Iterator[Update]] = iter,
) -> bool:
    """Drive `engine` over `updates`. Returns whether the plan was carried out; False: a stop was asked for.

    `profiled`: passes the updates through, and watches the device while some of them are computed.
    """
    with closing(ahead(map(engine.stage, updates))) as staged:
        return _learn(engine, profiled(meter.timed(staged)), plan, meter, watch)


def _learn(engine: Engine, staged: Iterable[Update], plan: Plan, meter: Meter, watch: Watch) -> bool:
    pending: list[tuple[int, float, Scalars]] = []
    for update in staged:
        learning_rate = plan.learning_rate(update.step)
        scalars = engine.train_step(update, learning_rate)
        meter.count(update, float(scalars["slots"]))
        if meter.warmup_ends:
            meter.wait(engine.synchronize)  # what the warm-up still computes is not counted
        pending.append((update.step, learning_rate, scalars))
        stop, last = watch.stop_requested(), update.step == plan.steps
        evaluating = last or plan.evaluates(update.step)
        keep = last or stop or plan.saves(update.step)
        if keep or evaluating or update.step % plan.log_every == 0:
            meter.wait(engine.synchronize)
            watch.logged([_on_host(*entry) for entry in pending])  # the only place that waits for the device
            pending.clear()
        if evaluating:
            with meter.pause("evaluation"):
                keep = watch.evaluate(update.step) or keep
        reached = evaluating and watch.reached()
        if keep or reached:
            with meter.pause("checkpoint"):
                watch.save(update.step)
        if reached:
            return True
        if stop and not last:
            return False
    return True


def _on_host(step: int, learning_rate: float, scalars: Scalars) -> Logged:
    scale = float(scalars["loss_scale"]) if "loss_scale" in scalars else None
    return Logged(step, learning_rate, float(scalars["loss"]), float(scalars["grad_norm"]), scale)


def predict(
    engine: Engine,
    head: Head,
    features: Features,
    batch_size: int,
    world: World,
    progress: Callable[[int], object] = lambda done: None,
) -> Arrays:
    """The head's outputs for every sequence in the order of `features`, on every rank: (N, C), or (T,) for spans.

    Each sequence is computed exactly once, beside others of its length.
    """
    numbers: list[np.ndarray] = [np.empty(0, np.int64)]
    empty = np.empty(0 if head.kind == "span" else (0, head.outputs), np.float32)
    found: dict[str, list[np.ndarray]] = {name: [empty] for name in OUTPUTS[head.kind]}
    for examples in by_length(features.lengths, batch_size, world.rank, world.size):
        outputs = engine.predict(features.batch(examples))
        for name, parts in found.items():
            parts.append(outputs[name])
        numbers.append(examples)
        progress(len(examples))
    everyone = engine.gather(np.concatenate(numbers))
    if len(everyone) != len(features) or len(np.unique(everyone)) != len(features):
        raise RuntimeError(f"{len(everyone)} predictions for {len(features)} sequences")  # a fault of bertkit's
    order = np.argsort(everyone)
    rows = _token_rows(features.lengths[everyone], order) if head.kind == "span" else order
    return {name: engine.gather(np.concatenate(parts))[rows] for name, parts in found.items()}


def check_finite(outputs: Arrays, features: Features, where: str) -> None:
    """Raises UserError where a sequence has outputs that are not finite: the largest of them would be no answer."""
    rows = np.zeros(len(features), bool)
    for values in outputs.values():
        bad = ~np.isfinite(values)
        if bad.ndim > 1:
            rows |= bad.any(axis=1)
        else:  # a value for each token
            rows[np.searchsorted(features.cu_seqlens, np.flatnonzero(bad), side="right") - 1] = True
    if rows.any():
        what = "windows" if any(values.ndim == 1 for values in outputs.values()) else "examples"
        raise UserError(
            f"{where}: {int(rows.sum()):,} of {len(rows):,} {what} have logits that are not finite "
            f"(the first, from 0: {int(rows.argmax()):,})",
            "the weights are damaged, or the numbers too large for this precision: try -d fp32",
        )


def _token_rows(lengths: np.ndarray, order: np.ndarray) -> np.ndarray:
    """(T,) where the tokens of sequences stand that have these lengths, taken in `order`."""
    starts = (np.cumsum(lengths) - lengths)[order]
    within = lengths[order]
    return np.repeat(starts - (np.cumsum(within) - within), within) + np.arange(int(within.sum()))


def answer(
    engine: Engine,
    task: Task,
    part: Part,
    rules: AnswerRules,
    batch_size: int,
    world: World,
    display: Display,
    what: str = "predicting",
) -> Answered:
    """The task's answers to one part, on every rank."""
    with display.progress(what, len(part.features)) as bar:
        outputs = predict(engine, task.head, part.features, batch_size, world, bar.add)
    check_finite(outputs, part.features, str(part.file))
    return task.format.answer(task, part, outputs, rules)


def evaluate(
    engine: Engine,
    task: Task,
    parts: Sequence[Part],
    rules: AnswerRules,
    batch_size: int,
    world: World,
    display: Display,
) -> tuple[dict[str, float], list[Answered]]:
    """(metrics, each part's answers). The metrics of a second part, as of mnli's, carry its name."""
    metrics: dict[str, float] = {}
    answered: list[Answered] = []
    for part in parts:
        found = answer(engine, task, part, rules, batch_size, world, display, "evaluating")
        if not found.metrics:
            raise UserError(f"{part.file} does not say what is right", "give a file with answers to score")
        metrics |= labelled(found.metrics, part)
        answered.append(found)
    return metrics, answered


def labelled(metrics: Mapping[str, float], part: Part) -> dict[str, float]:
    """The metrics under names that say which part they are of."""
    return {f"{name}_{part.name}" if part.name else name: value for name, value in metrics.items()}
