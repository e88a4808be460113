"""Every planned size computed once before it is needed, and what a user reads where one does not fit into memory."""

from __future__ import annotations

import gc
import logging
import time
from collections.abc import Callable, Iterable

from bertkit.engine.static_plan import StaticPlan
from bertkit.engine.static_shapes import Sizes
from bertkit.errors import DoesNotFit, out_of_memory

PATIENCE = 2.0  # seconds after which work is reported
SAID = 120  # characters of the framework's own words
logger = logging.getLogger("bertkit.engine")


def nothing() -> None:
    """Where a device has nothing to wait for, or to give back."""


def warm_up(
    plan: StaticPlan,
    training: bool,
    compute: Callable[[Sizes], object],
    *,
    free: Callable[[], object] = nothing,
    wait: Callable[[], object] = nothing,
    can_recompute: bool = False,
) -> bool:
    """`compute` every planned size, the largest first, so that no program is made after it. Returns whether any was.

    `free` gives back what a failed try left; `wait` waits for the device. Raises DoesNotFit, with the largest size
    that does, where memory is short.
    """
    planned = list(plan.planned(training))
    what = f"warm-up: {len(planned)} sizes for {'training' if training else 'answers'}"
    start = said = time.perf_counter()
    for number, sizes in enumerate(planned):
        if time.perf_counter() - said > PATIENCE:
            said = time.perf_counter()
            logger.info("%s, %d done after %.0f s", what, number, said - start)
        try:
            compute(sizes)
        except Exception as error:
            if not out_of_memory(error):
                raise
            reason = str(error)
        else:
            plan.met.add((training, sizes))
            continue
        fits = largest_that_fits(compute, planned[number + 1 :], free)
        raise planned_does_not_fit(sizes, fits, reason, training, can_recompute)
    wait()
    if planned and time.perf_counter() - start > PATIENCE:
        logger.info("%s in %.1f s", what, time.perf_counter() - start)
    return bool(planned)


def largest_that_fits(
    compute: Callable[[Sizes], object], smaller: Iterable[Sizes], free: Callable[[], object]
) -> Sizes | None:
    """The first of `smaller` that is computed without an error; `free` gives back what the last try left."""
    for sizes in smaller:
        gc.collect()
        free()
        try:
            compute(sizes)
        except Exception as error:
            if not out_of_memory(error):
                return None
            continue
        return sizes
    return None


def planned_does_not_fit(
    sizes: Sizes, fits: Sizes | None, reason: str, training: bool, can_recompute: bool = False
) -> DoesNotFit:
    """Of planned sizes. The cure names as many sequences as the size that fits stands for."""
    known = f"; the largest planned size that fits is {fits}" if fits else "; no smaller size is known to fit"
    most = sizes.sequences - 1 if fits is None else sizes.sequences * fits.slots // sizes.slots
    return does_not_fit(str(sizes), reason, most, training, known, can_recompute)


def does_not_fit(
    batch: str, reason: str, most: int, training: bool = True, known: str = "", can_recompute: bool = False
) -> DoesNotFit:
    """`batch`: what it is of; `reason`: the framework's own words; `most`: sequences that may fit."""
    first = reason.splitlines()[0] if reason else "out of memory"
    words = first if len(first) <= SAID else f"{first[:SAID]} …"
    setting = "train.micro_batch_size" if training else "evaluation.batch_size"
    lower = f"set {setting} to {max(1, most)} or less"
    if training:
        lower += " (an update is then computed in more parts, with the same result)"
        lower += ", or device.recompute=true" if can_recompute else ""
    return DoesNotFit(f"out of memory: a batch of {batch} does not fit ({words}){known}", lower)
