"""A trace of some of a run's updates, by the engine's own profiler."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

from bertkit.engine.interface import Engine, Profiler, Update
from bertkit.errors import UserError

TRACE = "trace.json"


def wanted(steps: str) -> tuple[int, int]:
    """The first and the last update of "20-22", or of "20". Raises UserError where there is none between them."""
    first, _, last = steps.partition("-")
    if not 0 < int(first) <= int(last or first):
        raise UserError(f"--profile {steps} names no updates", "write the first and the last, as 20-22; from 1 on")
    return int(first), int(last or first)


def profiled(
    engine: Engine, steps: str, trace: Path | None, say: Callable[[str], object]
) -> Callable[[Iterator[Update]], Iterator[Update]]:
    """What passes a leg's updates through and records those named. `trace`: None on all ranks but the first.

    Raises UserError where the engine has no profiler.
    """
    if not steps:
        return iter
    first, last = wanted(steps)
    if not isinstance(engine, Profiler):
        raise UserError("this backend has no profiler", "leave --profile away")
    profiler = engine

    def watch(updates: Iterator[Update]) -> Iterator[Update]:
        with ExitStack() as open_now:
            for number, update in enumerate(updates, 1):
                if number == first and trace:
                    engine.synchronize()
                    open_now.enter_context(profiler.profile(trace))
                yield update  # it is computed before the next one is asked for
                if number == last and trace:
                    engine.synchronize()
                    open_now.close()
                    say(f"profile: updates {first} to {last} are in {trace}, for chrome://tracing or Perfetto")

    return watch
