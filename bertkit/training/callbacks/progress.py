"""The progress of a run on the console: a bar on a terminal, lines elsewhere, and a line for each evaluation."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from bertkit.console import Counter, Display
from bertkit.records.meter import Meter
from bertkit.training.callbacks.base import Callback
from bertkit.training.objective import Objective
from bertkit.training.run import Run, UpdateMetrics

RECENT = 20  # updates whose mean loss is shown beside the dev set's scores


class ConsoleProgress(Callback):
    """`bar` is set while the loop runs."""

    def __init__(self, objective: Objective, meter: Meter, display: Display) -> None:
        self.objective, self.meter, self.display = objective, meter, display
        self.bar: Counter | None = None

    def on_updates(self, run: Run, updates: Sequence[UpdateMetrics]) -> None:
        if self.bar is None:
            return
        reading = self.meter.reading()
        speed = reading.per_second(reading.sequences)
        shown = {
            "loss": f"{np.mean([one.loss for one in updates]):.4f}",
            "lr": f"{updates[-1].learning_rate:.1e}",
        }
        self.bar.to(updates[-1].step, shown | ({"seq/s": f"{speed:.0f}"} if math.isfinite(speed) else {}))

    def on_evaluation(self, run: Run, metrics: Mapping[str, float]) -> None:
        shown = "  ".join(f"{name} {value:.4f}" for name, value in metrics.items())
        loss = f"loss {np.mean(run.losses[-RECENT:]):.4f}, " if run.losses else ""
        self.display.say(f"update {run.step} ({self.objective.place(run.step)}): {loss}dev {shown}")

    def on_interrupted(self, run: Run) -> None:
        if run.exit_code:
            what = f"stopped by {run.interrupted} after update {run.step} of {run.steps}, which is saved"
        else:
            most = run.settings["train.steps_this_run"]
            what = f"this job ends after its {most:,} updates, with {run.step:,} of {run.steps:,} done and saved"
        self.display.say(f"{what}; resume with the same command and --resume (in Python: resume=True)")

    def on_end(self, run: Run) -> None:
        if run.finished and run.step < run.steps:
            self.display.say(f"ended after update {run.step} of {run.steps}: {run.finished}")
