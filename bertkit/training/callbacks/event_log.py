"""The run's log, `log.jsonl`, and the logs for other programs that the recipe asks for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bertkit.records.event_log import RunLog
from bertkit.training.callbacks.base import Callback
from bertkit.training.callbacks.stopping import reached
from bertkit.training.objective import Objective
from bertkit.training.run import Run, UpdateMetrics


class EventLog(Callback):
    """One event a line. On ranks but the first `log` writes nothing."""

    def __init__(self, log: RunLog, objective: Objective) -> None:
        self.log, self.objective = log, objective
        log.tell("init")

    def on_start(self, run: Run) -> None:
        self.log.write("start", step=run.step, samples=self.objective.samples(run.step), **run.environment)

    def on_updates(self, run: Run, updates: Sequence[UpdateMetrics]) -> None:
        for one in updates:
            self.log.write("update", **one.known())

    def on_evaluation_start(self, run: Run) -> None:
        self.log.tell("evaluating", step=run.step, samples=self.objective.samples(run.step))

    def on_evaluation(self, run: Run, metrics: Mapping[str, float]) -> None:
        self.log.write("evaluation", step=run.step, samples=self.objective.samples(run.step), **metrics)

    def on_checkpoint(self, run: Run, path: Path) -> None:
        self.log.write("checkpoint", step=run.step, file=path.name)

    def on_interrupted(self, run: Run) -> None:
        self.log.write("stopped", step=run.step, signal=run.interrupted if run.exit_code else None)

    def on_end(self, run: Run) -> None:
        record: Mapping[str, Any] = run.record or {}
        self.log.write(
            "end",
            step=run.step,
            metrics=record["metrics"],
            reached=reached(self.objective, run) if self.objective.target(run.step) else True,
            final_loss=run.losses[-1] if run.losses else None,
            sequences_per_second=record["throughput"]["sequences_per_second"],
            training_seconds=record["time"]["training_seconds_of_all_legs"],
        )
