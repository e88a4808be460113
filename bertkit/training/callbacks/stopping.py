"""What ends a run before its last update."""

from __future__ import annotations

import math
import signal
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from bertkit.data.tasks.metrics import worth
from bertkit.engine.interface import Engine
from bertkit.errors import UserError, nearest
from bertkit.training.callbacks.base import Callback
from bertkit.training.objective import Objective
from bertkit.training.run import Run, UpdateMetrics
from bertkit.training.signals import EXIT_CODES, StopRequest

NOTHING, INTERRUPT, FINISH = 0, 1, 2  # what a rank asks for; the most that any asks for happens


class FiniteLoss(Callback):
    """Raises UserError where the loss is no number: nothing good comes after it."""

    def on_updates(self, run: Run, updates: Sequence[UpdateMetrics]) -> None:
        for one in updates:
            if not math.isfinite(one.loss):
                raise UserError(
                    f"the loss is {one.loss} at update {one.step}",
                    "lower optimizer.learning_rate, lengthen the warm-up, or train with -d fp32",
                )


class EarlyStopping(Callback):
    """Ends the run where `patience` evaluations in a row have brought nothing better.

    `metric`: which one; None: the one that chooses the task's best model. `min_delta`: a score must be better by more
    than this; `larger_is_better`: None: by the metric's name, as of rmse and loss a smaller one is.
    """

    def __init__(
        self,
        patience: int = 3,
        metric: str | None = None,
        min_delta: float = 0.0,
        larger_is_better: bool | None = None,
    ) -> None:
        if patience < 1:
            raise UserError(f"EarlyStopping(patience={patience}) would end before any update", "1 or more")
        self.patience, self.metric, self.min_delta = patience, metric, min_delta
        self.larger_is_better = larger_is_better

    def on_evaluation(self, run: Run, metrics: Mapping[str, float]) -> None:
        name = self.metric or run.metric
        if name not in metrics:
            raise UserError(f"there is no metric {name!r} to stop early by", nearest(name, metrics))
        scores = [self._worth(name, entry["metrics"][name]) for entry in run.evaluations]
        best = 0  # the place of the best evaluation; one before a resume counts too
        for place, score in enumerate(scores):
            if score > scores[best] + self.min_delta:
                best = place
        if len(scores) - 1 - best >= self.patience:
            run.stop(f"{name} is no better after {self.patience} evaluations")

    def _worth(self, name: str, score: float) -> float:
        """Larger is better; what is no number is worst."""
        if self.larger_is_better is None:
            return worth(name, score)
        return -math.inf if math.isnan(score) else score if self.larger_is_better else -score


class Target(Callback):
    """Ends the run where pre-training reaches the accuracy that is aimed at."""

    def __init__(self, objective: Objective) -> None:
        self.objective = objective

    def on_start(self, run: Run) -> None:
        self.on_evaluation(run, {})  # a resumed run may have reached it

    def on_evaluation(self, run: Run, metrics: Mapping[str, float]) -> None:
        if reached(self.objective, run):
            run.stop("the target accuracy is reached")


class Interruptions(Callback):
    """Ends a job at a signal, after `train.steps_this_run` updates, or where a callback of any rank asks to stop.

    A signal may reach the ranks at different updates, and all must end after the same one: so they ask each other,
    after each point at which a callback may have asked. It is the last callback of the run.
    """

    def __init__(self, engine: Engine, most: int) -> None:
        self.engine, self.most = engine, most  # `most` updates of this job; 0: no limit
        self.request = StopRequest()  # set from outside, where signals are caught
        self.updates = 0  # of this job

    def on_start(self, run: Run) -> None:
        self._agree(run)

    def on_update_end(self, run: Run, step: int) -> None:
        self.updates += 1
        if 0 < self.most <= self.updates:
            run.interrupted = "train.steps_this_run"
        else:
            self._agree(run)

    def on_updates(self, run: Run, updates: Sequence[UpdateMetrics]) -> None:
        self._agree(run)

    def on_evaluation(self, run: Run, metrics: Mapping[str, float]) -> None:
        self._agree(run)

    def on_checkpoint(self, run: Run, path: Path) -> None:
        self._agree(run)

    def _agree(self, run: Run) -> None:
        """A collective."""
        mine = FINISH if run.finished else INTERRUPT if self.request else NOTHING
        most = int(self.engine.gather(np.array([mine], np.uint8)).max())
        if most == FINISH:
            run.stop("a callback of another process asked for it")
        elif most == INTERRUPT:
            run.interrupted = self.request.signal.name if self.request.signal else "a signal to another rank"
            run.exit_code = self.request.exit_code or EXIT_CODES[signal.SIGTERM]


def reached(objective: Objective, run: Run) -> bool:
    """Whether the last evaluation reached the accuracy that is aimed at."""
    if not run.evaluations:
        return False
    last = run.evaluations[-1]
    target = objective.target(last["step"])
    return bool(target) and bool(last["metrics"].get("mlm_accuracy", 0.0) >= target)
