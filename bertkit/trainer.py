"""The training loop and the evaluation loop, each readable from top to bottom.

Legend: N examples, C outputs of the head.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from bertkit.backend import Engine, Scalars, Update
from bertkit.display import Display
from bertkit.features import Features
from bertkit.meter import Meter
from bertkit.sampler import by_length
from bertkit.schedule import Schedule
from bertkit.tasks import Task
from bertkit.tasks.reading import Part
from bertkit.world import World


@dataclass(frozen=True)
class Plan:
    """What happens when, in updates."""

    steps: int  # the run's last update
    learning_rate: Schedule
    log_every: int
    evaluate_every: int
    save_every: int


@dataclass(frozen=True)
class Logged:
    """One update's numbers, on the host."""

    step: int
    learning_rate: float
    loss: float
    grad_norm: float


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


def fit(engine: Engine, updates: Iterable[Update], plan: Plan, meter: Meter, watch: Watch) -> bool:
    """Drive `engine` over `updates`. Returns whether the plan was carried out; False: a stop was asked for."""
    pending: list[tuple[int, float, Scalars]] = []
    for update in meter.timed(updates):
        learning_rate = plan.learning_rate(update.step)
        scalars = engine.train_step(update, learning_rate)
        meter.count(update, float(scalars["slots"]))
        pending.append((update.step, learning_rate, scalars))
        stop, last = watch.stop_requested(), update.step == plan.steps
        evaluating = last or update.step % plan.evaluate_every == 0
        keep = last or stop or update.step % plan.save_every == 0
        if keep or evaluating or update.step % plan.log_every == 0:
            meter.wait(engine.synchronize)
            watch.logged([_on_host(*entry) for entry in pending])  # the only place that waits for the device
            pending.clear()
        if evaluating:
            with meter.pause("evaluation"):
                keep = watch.evaluate(update.step) or keep
        if keep:
            with meter.pause("checkpoint"):
                watch.save(update.step)
        if stop and not last:
            return False
    return True


def _on_host(step: int, learning_rate: float, scalars: Scalars) -> Logged:
    return Logged(step, learning_rate, float(scalars["loss"]), float(scalars["grad_norm"]))


def predict(
    engine: Engine,
    features: Features,
    batch_size: int,
    world: World,
    progress: Callable[[int], object] = lambda done: None,
) -> np.ndarray:
    """Logits (N, C) of every example in the order of `features`, on every rank. Each is computed exactly once."""
    numbers: list[np.ndarray] = [np.empty(0, np.int64)]
    logits: list[np.ndarray] = []
    for examples in by_length(features.lengths, batch_size, world.rank, world.size):
        logits.append(engine.predict(features.batch(examples))["logits"])
        numbers.append(examples)
        progress(len(examples))
    mine = np.concatenate(logits) if logits else np.empty((0, 0), np.float32)
    everyone = engine.gather(np.concatenate(numbers))
    rows = engine.gather(mine) if world.size == 1 else _gather_rows(engine, mine)
    if len(np.unique(everyone)) != len(features):
        raise RuntimeError(f"{len(everyone)} predictions for {len(features)} examples")  # a fault of bertkit's
    return rows[np.argsort(everyone)]


def _gather_rows(engine: Engine, mine: np.ndarray) -> np.ndarray:
    """Gather where a rank may have had nothing to predict and so does not know C."""
    width = int(engine.gather(np.array([mine.shape[1]])).max())
    return engine.gather(mine if mine.shape[1] else np.empty((0, width), np.float32))


def evaluate(
    engine: Engine, task: Task, parts: Sequence[Part], batch_size: int, world: World, display: Display
) -> tuple[dict[str, float], list[np.ndarray]]:
    """(metrics, logits (N, C) of each part). The metrics of a second part, as of mnli's, carry its name."""
    metrics: dict[str, float] = {}
    logits: list[np.ndarray] = []
    for part in parts:
        with display.progress("evaluating", len(part.features)) as bar:
            found = predict(engine, part.features, batch_size, world, bar.add)
        suffix = f"_{part.name}" if part.name else ""
        scores = task.score(found, part.features.labels["labels"])
        metrics |= {f"{name}{suffix}": value for name, value in scores.items()}
        logits.append(found)
    return metrics, logits
