"""What a user reads where a batch does not fit into the device's memory: what to lower, and what would fit."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterable

from bertkit.plugin import DoesNotFit, Sizes, out_of_memory

SAID = 120  # characters of the framework's own words


def largest_that_fits(
    compute: Callable[[Sizes], object], smaller: Iterable[Sizes], free: Callable[[], object]
) -> Sizes | None:
    """The first of `smaller` that is computed without an error; `free` gives back what the last try left."""
    for sizes in smaller:
        gc.collect()
        free()
        try:
            compute(sizes)
        except (RuntimeError, MemoryError) as error:
            if not out_of_memory(error):
                return None
            continue
        return sizes
    return None


def planned_does_not_fit(
    sizes: Sizes, fits: Sizes | None, reason: str, training: bool, can_recompute: bool
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
