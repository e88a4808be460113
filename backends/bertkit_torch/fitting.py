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


def does_not_fit(
    sizes: Sizes, fits: Sizes | None, reason: str, training: bool, can_recompute: bool = False
) -> DoesNotFit:
    """`reason`: the framework's own words. The cure names as many sequences as the size that fits stands for."""
    first = reason.splitlines()[0] if reason else "out of memory"
    words = first if len(first) <= SAID else f"{first[:SAID]} …"
    known = f"the largest planned size that fits is {fits}" if fits else "no smaller size is known to fit"
    setting = "train.micro_batch_size" if training else "evaluation.batch_size"
    most = sizes.sequences - 1 if fits is None else sizes.sequences * fits.slots // sizes.slots
    lower = f"set {setting} to {max(1, most)} or less"
    if training:
        lower += " (an update is then computed in more parts, with the same result)"
        lower += ", or device.recompute=true" if can_recompute else ""
    return DoesNotFit(f"out of memory: a batch of {sizes} does not fit ({words}); {known}", lower)
