"""A trace of some of a run's updates, by the engine's own profiler."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

from bertkit.console import Display
from bertkit.engine.interface import Engine, Profiler
from bertkit.errors import UserError
from bertkit.training.callbacks.base import Callback
from bertkit.training.run import Run


def wanted(steps: str) -> tuple[int, int]:
    """The first and the last update of "20-22", or of "20". Raises UserError where there is none between them."""
    first, _, last = steps.partition("-")
    if not 0 < int(first) <= int(last or first):
        raise UserError(f"--profile {steps} names no updates", "write the first and the last, as 20-22; from 1 on")
    return int(first), int(last or first)


class Profiling(Callback):
    """Profiles the updates of this job that `steps` names. Raises UserError where the engine has no profiler."""

    def __init__(self, engine: Engine, steps: str, trace: Path, display: Display) -> None:
        if not isinstance(engine, Profiler):
            raise UserError("this backend has no profiler", "drop --profile")
        self.engine, self.profiler, self.trace, self.display = engine, engine, trace, display
        self.first, self.last = wanted(steps)
        self.updates = 0  # of this job
        self.recording = ExitStack()

    def on_update_start(self, run: Run, step: int) -> None:
        self.updates += 1
        if self.updates == self.first and run.world.is_first:
            self.engine.synchronize()
            self.recording.enter_context(self.profiler.profile(self.trace))

    def on_update_end(self, run: Run, step: int) -> None:
        if self.updates == self.last and run.world.is_first:
            self.engine.synchronize()
            self.recording.close()
            self.display.say(
                f"profile: updates {self.first} to {self.last} are in {self.trace}, for chrome://tracing or Perfetto"
            )

    def on_close(self, run: Run) -> None:
        self.recording.close()
