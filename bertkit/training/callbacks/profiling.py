"""A trace of some of a run's updates, or of some calls for inference, by the engine's own profiler."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from pathlib import Path

import numpy as np

from bertkit.console import Display
from bertkit.engine.interface import Batch, Engine, Profiler
from bertkit.errors import UserError
from bertkit.training.callbacks.base import Callback
from bertkit.training.run import Run

VIEWERS = "for chrome://tracing or Perfetto"


def wanted(steps: str, what: str = "updates") -> tuple[int, int]:
    """The first and the last of "20-22", or of "20". Raises UserError where there is none between them."""
    found = re.fullmatch(r"(\d{1,9})(?:-(\d{1,9}))?", steps, re.ASCII)
    first, last = (int(found[1]), int(found[2] or found[1])) if found else (0, 0)
    if not 0 < first <= last:
        raise UserError(f"--profile {steps} names no {what}", "write the first and the last, as 20-22; from 1 on")
    return first, last


def profiler_of(engine: Engine, backend: str) -> Profiler:
    """Raises UserError where the engine has no profiler."""
    if not isinstance(engine, Profiler):
        raise UserError(f"backend {backend} has no profiler", "drop --profile")
    return engine


class Profiling(Callback):
    """Profiles the updates of this job that `steps` names. Raises UserError where the engine has no profiler."""

    def __init__(self, engine: Engine, backend: str, steps: str, trace: Path, display: Display) -> None:
        self.engine, self.profiler, self.trace, self.display = engine, profiler_of(engine, backend), trace, display
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
            self.display.say(f"profile: updates {self.first} to {self.last} are in {self.trace}, {VIEWERS}")

    def on_close(self, run: Run) -> None:
        if self.updates < self.last and run.world.is_first:
            found = f"updates {self.first} to {self.updates} alone are in {self.trace}"
            ended = f"the job ended after {self.updates} updates, before update {self.last}"
            self.display.warn(f"profile: {ended}: {found if self.updates >= self.first else 'nothing was profiled'}")
        self.recording.close()


class EvaluationProfile:
    """Profiles the batches that `steps` names, counted over all parts of an evaluation. For the first process."""

    def __init__(self, profiler: Profiler, steps: str, trace: Path, display: Display) -> None:
        self.profiler, self.steps, self.trace, self.display = profiler, steps, trace, display
        self.first, self.last = wanted(steps, "batches")
        self.batches = 0
        self.recording = ExitStack()

    def check(self, batches: int) -> None:
        """Raises UserError where the evaluation has fewer than are to be profiled."""
        if self.last > batches:
            raise UserError(
                f"--profile {self.steps}: the evaluation has {batches:,} batches",
                "name some of these, or make them smaller with -b",
            )

    def over(self, batches: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
        """The batches; what is done with those to be profiled is recorded."""
        for batch in batches:
            self.batches += 1
            if self.batches == self.first:
                self.recording.enter_context(self.profiler.profile(self.trace))
            yield batch
            if self.batches == self.last:
                self.recording.close()
                self.display.say(f"profile: batches {self.first} to {self.last} are in {self.trace}, {VIEWERS}")

    def close(self) -> None:
        self.recording.close()


def profile_calls(engine: Engine, profiler: Profiler, batches: Iterable[Batch], trace: Path) -> None:
    """Inference calls for all of the batches, recorded."""
    with profiler.profile(trace):
        for batch in batches:
            engine.predict(batch)
