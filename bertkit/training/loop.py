"""The training loop. `bertkit train`, `bertkit.Trainer` and `bertkit bench` all go through it."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Sequence
from contextlib import closing
from dataclasses import dataclass

from bertkit.engine.flops import of_batch, training_flops
from bertkit.engine.interface import Engine, Scalars, Sensors, Update
from bertkit.model.config import Head, ModelConfig
from bertkit.records.energy import Energy
from bertkit.records.meter import Meter, unknown
from bertkit.training.callbacks.base import Callback
from bertkit.training.prefetch import ahead
from bertkit.training.run import Run, UpdateMetrics
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
    ahead: bool = True  # whether updates are made in a thread; False: the device is asked for their sake


def make_meter(model: ModelConfig, head: Head, engine: Engine, energy: Energy, warmup: int = 0) -> Meter:
    """A meter of training updates. `warmup`: updates at the start that do not count."""
    return Meter(
        warmup=warmup,
        flops=functools.partial(of_batch, training_flops, model, head),
        energy=energy.joules,
        communication=engine.communication if isinstance(engine, Sensors) else unknown,
    )


def fit(
    engine: Engine, updates: Iterable[Update], plan: Plan, meter: Meter, callbacks: Sequence[Callback], run: Run
) -> None:
    """Drive `engine` over `updates`, which as a rule are made ahead in a thread, until the plan's end or a callback's
    stop.

    The order in which callbacks are called is drawn in `Callback`. Only `meter.wait` waits for the device.
    """
    pending: list[tuple[Update, float, Scalars]] = []
    made = (engine.stage(update) for update in updates)
    with closing(ahead(made) if plan.ahead else made) as staged:
        for update in meter.timed(staged):
            for callback in callbacks:
                callback.on_update_start(run, update.step)
            rate = plan.learning_rate(update.step)
            scalars = engine.train_step(update, rate)
            meter.count(update, float(scalars["slots"]))
            if meter.warmup_ends:
                meter.wait(engine.synchronize)  # what the warm-up still computes is not counted
            pending.append((update, rate, scalars))
            for callback in callbacks:
                callback.on_update_end(run, update.step)
            last = update.step == plan.steps
            ends = last or bool(run.interrupted or run.finished)
            evaluates = last or bool(run.finished) or plan.evaluates(update.step)
            saves = ends or plan.saves(update.step)
            if saves or evaluates or update.step % plan.log_every == 0:
                meter.wait(engine.synchronize)
                fetched = [_on_host(*entry) for entry in pending]
                pending.clear()
                run.advance(fetched)
                for callback in callbacks:
                    callback.on_updates(run, fetched)
            if run.finished and not ends:  # asked for just now: this is the last update after all
                ends = evaluates = True
            run.keep = False
            if evaluates:
                with meter.pause("evaluation"):
                    for callback in callbacks:
                        callback.on_evaluation_start(run)
            if saves or run.keep or run.finished:
                with meter.pause("checkpoint"):
                    for callback in callbacks:
                        callback.on_checkpoint_start(run)
            if ends or run.finished:
                return


def _on_host(update: Update, learning_rate: float, scalars: Scalars) -> UpdateMetrics:
    scale = float(scalars["loss_scale"]) if "loss_scale" in scalars else None
    return UpdateMetrics(
        step=update.step,
        learning_rate=learning_rate,
        loss=float(scalars["loss"]),
        grad_norm=float(scalars["grad_norm"]),
        loss_scale=scale,
    )
