"""What every backend must keep, as functions: pytest runs them, and so does `bertkit check NAME`.

Each `check_*` takes a backend and returns a sentence on what it saw; it raises AssertionError where the contract is
broken and Skip where the backend does not claim the ability. All of it goes through the neutral seam alone.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from bertkit.conformance.contract import (  # fmt: skip
    check_card,
    check_clipping,
    check_dropout,
    check_empty_micro_batch,
    check_layouts,
    check_learns,
    check_resume,
    check_split,
)
from bertkit.conformance.device import check_host_waits, check_memory, check_static_shapes
from bertkit.conformance.distillation import check_teacher_logits, check_teacher_states, check_teacher_words
from bertkit.conformance.numerics import (
    check_lamb,
    check_loss_scaling,
    check_optimizer,
    check_precisions,
    check_reference,
)
from bertkit.conformance.progress import OutOfTime, Told, Watched
from bertkit.conformance.tolerance import Skip
from bertkit.engine.interface import Backend

__all__ = ["CHECKS", "Result", "Skip", "run_check", "run_checks"]


@dataclass(frozen=True)
class Result:
    name: str
    outcome: str  # passed | failed | skipped
    detail: str
    seconds: float


CHECKS: Mapping[str, Callable[[Backend], str]] = {
    check.__name__.removeprefix("check_"): check
    for check in (
        check_card, check_reference, check_layouts, check_split, check_empty_micro_batch, check_learns,
        check_optimizer, check_lamb, check_clipping, check_loss_scaling, check_dropout, check_resume, check_precisions,
        check_teacher_logits, check_teacher_states, check_teacher_words, check_static_shapes, check_host_waits,
        check_memory,
    )
}  # fmt: skip


def run_checks(backend: Backend, names: tuple[str, ...] = ()) -> Iterator[Result]:
    """The checks named, or every one, one after another; a check that breaks down counts as failed."""
    for name in names or CHECKS:
        yield run_check(backend, name)


def run_check(backend: Backend, name: str, told: Told = lambda made: None, until: float = float("inf")) -> Result:
    """One check. `told` hears of each engine that it makes; `until`, of time.perf_counter(): when it makes no more."""
    start = time.perf_counter()
    try:
        outcome, detail = "passed", CHECKS[name](Watched(backend, told, until))
    except Skip as reason:
        outcome, detail = "skipped", str(reason)
    except OutOfTime:
        outcome, detail = "failed", "not finished in the time announced; give more with --limit"
    except AssertionError as error:
        outcome, detail = "failed", str(error)
    except Exception as error:  # the report must go on to the other checks
        outcome, detail = "failed", f"{type(error).__name__}: {error}"
    return Result(name, outcome, detail, time.perf_counter() - start)
