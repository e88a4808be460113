"""When a device's programs were compiled: all of them should be in the warm-up."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from bertkit.engine.interface import Counters, Engine
from bertkit.records.event_log import RunLog
from bertkit.training.callbacks.base import Callback
from bertkit.training.run import Run, UpdateMetrics


class Programs(Callback):
    """Logs the event `programs` wherever more were compiled since the last look; nothing where the engine counts none.

    It looks where the host waits for the device anyway: every `log.every` updates, and after an evaluation.
    """

    def __init__(self, engine: Engine, log: RunLog) -> None:
        self.engine, self.log = engine, log
        self.known = 0

    def on_updates(self, run: Run, updates: Sequence[UpdateMetrics]) -> None:
        self._look(updates[-1].step, "training")

    def on_evaluation(self, run: Run, metrics: Mapping[str, float]) -> None:
        self._look(run.step, "evaluation")

    def _look(self, step: int, during: str) -> None:
        found = (self.engine.programs() if isinstance(self.engine, Counters) else None) or 0
        if found > self.known:
            self.log.write("programs", step=step, during=during, compiled=found - self.known, total=found)
            self.known = found
