"""The callback of a trial: each evaluation's score is reported; a trial that is worse than the median ends early."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from bertkit.training.callbacks.base import Callback
from bertkit.training.run import Run

if TYPE_CHECKING:
    from optuna.trial import Trial


class Pruning(Callback):
    """`pruned`: why the trial was ended; empty while it was not. The n-th evaluations of trials are compared."""

    def __init__(self, trial: Trial, metric: str, say: Callable[[str], None]) -> None:
        self.trial, self.metric, self.say = trial, metric, say
        self.pruned = ""

    def on_start(self, run: Run) -> None:
        """A resumed trial may have been killed before the end that its last evaluation asked for."""
        if run.evaluations:
            self._judge(run)

    def on_evaluation(self, run: Run, metrics: Mapping[str, float]) -> None:
        score, count = metrics[self.metric], len(run.evaluations)
        if math.isfinite(score) and count not in self._reported():  # a correlation is none where all answers are equal
            self.trial.report(score, count)
        self.say(f"trial {self.trial.number}: update {run.step} of {run.steps}: dev {self.metric} {score:.4f}")
        self._judge(run)

    def _reported(self) -> Mapping[int, float]:
        """Scores by number of evaluation; a resumed trial's from before, too."""
        found = self.trial.study.get_trials(deepcopy=False)[self.trial.number]
        return dict(found.intermediate_values)

    def _judge(self, run: Run) -> None:
        score, count = run.evaluations[-1]["metrics"][self.metric], len(run.evaluations)
        if math.isfinite(score) and run.step < run.steps and self.trial.should_prune():
            self.pruned = f"{self.metric} {score:.4f} at evaluation {count} is worse than the median of earlier trials"
            run.stop(f"pruned: {self.pruned}")
