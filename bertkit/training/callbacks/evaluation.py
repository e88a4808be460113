"""Scoring the model while it is trained."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from bertkit.console import Display
from bertkit.data.tasks.metrics import worth
from bertkit.data.tasks.task import Answered
from bertkit.engine.interface import Engine
from bertkit.records import collect
from bertkit.training.callbacks.base import Callback
from bertkit.training.objective import Objective
from bertkit.training.run import Run


class Evaluation(Callback):
    """Scores the model, remembers the best one, and tells `followers` the metrics."""

    def __init__(self, objective: Objective, engine: Engine, display: Display, followers: Sequence[Callback]) -> None:
        self.objective, self.engine, self.display, self.followers = objective, engine, display, followers
        self.answered: list[Answered] | None = None  # at the last evaluation of this process

    def on_evaluation_start(self, run: Run) -> None:
        run.metrics = self.score(run.step)
        primary = self.objective.setup.task.primary
        score, best = (worth(primary, value) for value in (run.metrics[primary], run.progress.best_score))
        better = run.progress.best_step == 0 or score > best
        run.progress = dataclasses.replace(
            run.progress,
            evaluations=(*run.progress.evaluations, _entry(run)),
            best_step=run.step if better else run.progress.best_step,
            best_score=run.metrics[primary] if better else run.progress.best_score,
        )
        run.keep = better and self.objective.saves_best
        for callback in self.followers:
            callback.on_evaluation(run, run.metrics)

    def score(self, step: int) -> Mapping[str, float]:
        """Metrics of the model as the engine has it, after update `step`. A collective."""
        metrics, self.answered = self.objective.score(self.engine, self.display, step)
        return metrics


def _entry(run: Run) -> dict[str, Any]:
    """The update, this process's seconds until this evaluation began, and the scores."""
    training, wall = run.seconds()
    times = {"training_seconds": collect.number(training), "wall_seconds": collect.number(wall)}
    return {"step": run.step, **times, "metrics": dict(run.metrics)}
