"""What a checkpoint's loss scaling gives back, in whatever framework it goes on."""

from __future__ import annotations

import logging
from collections.abc import Mapping

import numpy as np

from bertkit.engine.interface import LossScaling
from bertkit.errors import UserError

# The factor; updates since the last overflow or growth; overflows in a row; the number of the parameter at which the
# last one began.
STATE = ("factor", "good", "overflows", "first")
MOST = 2.0**24  # the factor is not doubled beyond it: gradients of zeros never overflow, however large it is
LARGEST = 3e38  # float32 ends at 3.4e38
logger = logging.getLogger("bertkit.engine")


def begun(spec: LossScaling) -> dict[str, float]:
    """The state of a new run."""
    return {"factor": float(spec.initial), "good": 0.0, "overflows": 0.0, "first": -1.0}


def restored(spec: LossScaling, arrays: Mapping[str, np.ndarray]) -> dict[str, float]:
    """The state in a checkpoint, what it has of it; a run in another precision left none: then it begins anew.

    So it does, with a warning, where a number of it is not finite: no later update could mend it.
    """
    found = {name: float(array) for name in STATE if (array := arrays.get(f"loss_scaling.{name}")) is not None}
    wrong = [name for name, value in found.items() if not abs(value) < LARGEST or (name == "factor" and value <= 0)]
    if not wrong:
        return found
    name = wrong[0]
    logger.warning(
        "the checkpoint's loss scaling has %s = %g: the loss scale restarts at %g", name, found[name], spec.initial
    )
    return begun(spec)


def check(spec: LossScaling, overflows: int, factor: float, name: str) -> None:
    """Raises UserError after too many overflows in a row; `name`: of the parameter at which the last one began."""
    if overflows >= spec.patience:
        raise UserError(
            f"{overflows} updates in a row overflowed in fp16 at a loss scale down to {factor:g}; the last "
            f"began at the gradient of {name}",
            "train in bf16 (-d bf16), or lower optimizer.learning_rate or loss_scaling.initial",
        )
