"""How far the checks are, how long they are likely to take, and when they end: counted in engines that they make."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from bertkit.conformance.fixtures import example_batch, job, train, trained_heads, with_settings
from bertkit.distributed.world import World
from bertkit.engine.interface import Backend, Capabilities, Engine, Job, Probe, Setting
from bertkit.model.config import HeadKind

Told = Callable[[int], None]  # of an engine that was made: the how many-th
FEW = 10  # engines for which no trial is worth its time
SHORTEST = 600.0  # seconds that the checks are given at the least
TIMES = 4.0  # of what they are expected to take, that they are given
KIND: HeadKind = "classification"


class OutOfTime(Exception):
    """The time that was announced is over."""


# About how many updates and predictions follow an engine's first.
FURTHER = {
    "learns": 39, "optimizer": 9, "lamb": 9, "loss_scaling": 92, "dropout": 2, "resume": 4, "precisions": 27,
    "static_shapes": 50, "host_waits": 12, "memory": 49,
}  # fmt: skip


def engines(name: str, backend: Backend) -> int:
    """How many a check makes of this backend, where it applies."""
    heads, trained = len(backend.capabilities.heads), len(trained_heads(backend))
    layouts, precisions = len(backend.capabilities.layouts), backend.probe().precisions
    counts: Mapping[str, int] = {
        "reference": 1 + heads * layouts * len(precisions),
        "layouts": heads * layouts,
        "split": 2 * trained,
        "empty_micro_batch": 2,
        "learns": trained,
        "optimizer": 2,
        "lamb": 2 * ("lamb" in backend.capabilities.optimizers),
        "clipping": 4,
        "loss_scaling": int("fp16" in precisions),
        "dropout": 5,
        "resume": 3,
        "precisions": 1 + len(precisions),
        "static_shapes": 1,
        "host_waits": 1,
        "memory": 1,
        "teacher_logits": 3 + sum(kind != "pretraining" for kind in trained_heads(backend)),
        "teacher_states": 2 * layouts,
        "teacher_words": 2 * layouts,
    }
    return counts.get(name, 0)


@dataclass(frozen=True)
class CheckPlan:
    """What is ahead."""

    engines: Mapping[str, int]  # by check
    expected: float | None  # seconds, by a trial; None: they are few, or the trial failed, as the checks then tell
    limit: float  # seconds after which what is left is not finished

    def __str__(self) -> str:
        count = len(self.engines)
        checks = f"{count} check{'s' if count != 1 else ''}"
        about = f", about {spoken(self.expected)} by a trial" if self.expected is not None else ""
        return f"{checks}{about}; all end within {spoken(self.limit)} (--limit)"


def spoken(seconds: float) -> str:
    """Rounded up."""
    return f"{-(-seconds // 60):.0f} min" if seconds > 99 else f"{-(-seconds // 1):.0f} s"


def plan(backend: Backend, names: Sequence[str], limit: float | None = None) -> CheckPlan:
    """`limit`: seconds; None: as long as a trial suggests."""
    counts = {name: engines(name, backend) for name in names}
    expected = None
    if sum(counts.values()) > FEW and backend.capabilities.computes:
        try:
            first, further = pace(backend)
            expected = sum(count * (first + FURTHER.get(name, 1) * further) for name, count in counts.items())
        except Exception:  # whatever it is, the checks find it and tell
            expected = None
    return CheckPlan(counts, expected, limit or max(SHORTEST, TIMES * (expected or 0.0)))


def pace(backend: Backend) -> tuple[float, float]:
    """Seconds of an engine with its first update, and of a further update, of the second engine that is made."""
    for _ in range(2):  # the first one loads the framework
        start = time.perf_counter()
        engine = with_settings(backend, job(KIND))
        train(engine, example_batch(KIND), KIND, 1)
        middle = time.perf_counter()
        train(engine, example_batch(KIND), KIND, 4, first=2)
        end = time.perf_counter()
        engine.close()
    return middle - start, (end - middle) / 4


class Watched:
    """A backend whose engines are counted, and are no more made when the time is over."""

    def __init__(self, inner: Backend, told: Told, until: float) -> None:
        """`until`: of time.perf_counter()."""
        self.inner, self.told, self.until, self.made = inner, told, until, 0
        self.name, self.aliases, self.preference = inner.name, inner.aliases, inner.preference
        self.capabilities: Capabilities = inner.capabilities
        self.settings: Mapping[str, Setting] = inner.settings

    def probe(self) -> Probe:
        return self.inner.probe()

    def variables(self, settings: Mapping[str, str | int | float | bool]) -> Mapping[str, str]:
        return self.inner.variables(settings)

    def engine(self, job: Job, world: World) -> Engine:
        if time.perf_counter() > self.until:
            raise OutOfTime
        made = self.inner.engine(job, world)
        self.made += 1
        self.told(self.made)
        return made
