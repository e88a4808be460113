"""Runs followed by other programs: Weights & Biases, MLflow and TensorBoard, each through its own library.

A library is imported when its callback is made, so that a missing one is known before anything is trained. The first
process alone sends; `train/…` are an update's numbers, `evaluation/…` the dev set's scores.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bertkit.errors import UserError
from bertkit.records.loggers import CURVES, Curves
from bertkit.training.callbacks.base import Callback
from bertkit.training.run import Run, UpdateMetrics

PARAMETERS_AT_ONCE = 100  # that MLflow's server takes in one call


class WeightsAndBiases(Callback):
    """Follows a run in Weights & Biases: `options` are those of `wandb.init`, as `project` and `name`."""

    def __init__(self, **options: Any) -> None:
        """Raises UserError where wandb is not installed."""
        try:
            import wandb
        except ImportError:
            raise UserError("WeightsAndBiases needs wandb", "pip install 'bertkit[wandb]'") from None
        self.wandb, self.options = wandb, options
        self.followed: Any = None

    def on_start(self, run: Run) -> None:
        if run.world.is_first:
            self.followed = self.wandb.init(config=dict(run.settings), **self.options)

    def on_updates(self, run: Run, updates: Sequence[UpdateMetrics]) -> None:
        for one in updates if self.followed else ():
            self.followed.log(_numbers(one), step=one.step)

    def on_evaluation(self, run: Run, metrics: Mapping[str, float]) -> None:
        if self.followed:
            self.followed.log(_scores(metrics), step=run.step)

    def on_end(self, run: Run) -> None:
        if self.followed:
            self.followed.summary.update({f"result/{name}": value for name, value in run.metrics.items()})

    def on_close(self, run: Run) -> None:
        if self.followed:
            self.followed.finish(exit_code=0 if run.record is not None else run.exit_code or 1)
            self.followed = None


class Mlflow(Callback):
    """Follows a run in MLflow. `experiment`: its name, made where there is none; `options`: of `mlflow.start_run`.

    Where it is stored is MLflow's own setting (`mlflow.set_tracking_uri`, MLFLOW_TRACKING_URI).
    """

    def __init__(self, experiment: str | None = None, **options: Any) -> None:
        """Raises UserError where mlflow is not installed."""
        try:
            import mlflow
        except ImportError:
            raise UserError("Mlflow needs mlflow", "pip install 'bertkit[mlflow]'") from None
        self.mlflow, self.experiment, self.options = mlflow, experiment, options
        self.follows = False

    def on_start(self, run: Run) -> None:
        if not run.world.is_first:
            return
        if self.experiment is not None:
            self.mlflow.set_experiment(self.experiment)
        self.mlflow.start_run(**self.options)
        self.follows = True
        settings = iter(run.settings.items())
        while some := dict(itertools.islice(settings, PARAMETERS_AT_ONCE)):
            self.mlflow.log_params(some)

    def on_updates(self, run: Run, updates: Sequence[UpdateMetrics]) -> None:
        for one in updates if self.follows else ():
            self.mlflow.log_metrics(_numbers(one), step=one.step)

    def on_evaluation(self, run: Run, metrics: Mapping[str, float]) -> None:
        if self.follows:
            self.mlflow.log_metrics(_scores(metrics), step=run.step)

    def on_end(self, run: Run) -> None:
        if self.follows:
            self.mlflow.log_metrics({f"result/{name}": value for name, value in run.metrics.items()}, step=run.step)

    def on_close(self, run: Run) -> None:
        if self.follows:
            ended = "FINISHED" if run.record is not None else "KILLED" if run.interrupted else "FAILED"
            self.mlflow.end_run(status=ended)
            self.follows = False


class TensorBoardCallback(Callback):
    """Curves for TensorBoard in `folder`; None: `tensorboard` in the run's, as the setting `log.tensorboard` does."""

    def __init__(self, folder: str | Path | None = None) -> None:
        """Raises UserError where tensorboard is not installed."""
        Curves(Path())  # opens nothing yet
        self.folder = folder
        self.curves: Curves | None = None

    def on_start(self, run: Run) -> None:
        if run.world.is_first:
            self.curves = Curves(Path(self.folder or run.folder / CURVES))
            self.curves.write("start", time.time(), {"step": run.step})

    def on_updates(self, run: Run, updates: Sequence[UpdateMetrics]) -> None:
        for one in updates if self.curves else ():
            self._write("update", one.known())

    def on_evaluation(self, run: Run, metrics: Mapping[str, float]) -> None:
        self._write("evaluation", {"step": run.step, **metrics})

    def on_close(self, run: Run) -> None:
        self._write("end", {})
        self.curves = None

    def _write(self, event: str, values: Mapping[str, Any]) -> None:
        if self.curves:
            self.curves.write(event, time.time(), values)


def _numbers(one: UpdateMetrics) -> dict[str, float]:
    """An update's, by the names that curves have."""
    return {f"train/{name}": value for name, value in one.known().items() if name != "step"}


def _scores(metrics: Mapping[str, float]) -> dict[str, float]:
    return {f"evaluation/{name}": value for name, value in metrics.items()}
