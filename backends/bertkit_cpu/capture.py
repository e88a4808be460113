"""A function's operators without the Python between them: torch's interpreter runs what one call of it did.

One short sequence spends 10 to 50 µs in each operator and up to a quarter of its time between them.
"""

from __future__ import annotations

import functools
import logging
import warnings
from typing import Any

import torch
from torch import Tensor

from bertkit_torch.weights import ShortLayer

logger = logging.getLogger(__name__)

# What is recorded takes no list of scalars, which an operator may have beside its tensors; a script's operator does.
SCRIPTS = """
def linear(x: Tensor, weight: Tensor, bias: Tensor, after: str, form: str) -> Tensor:
    scalars: List[Optional[number]] = []
    return torch.ops.mkldnn._linear_pointwise(x, weight, bias, after, scalars, form)

def quantised(x: Tensor, scale: float, zero: int, weight: Tensor, scales: Tensor, zeros: Tensor, bias: Tensor,
              to_scale: float, to_zero: int, dtype: int, after: str, form: str) -> Tensor:
    scalars: List[Optional[number]] = []
    return torch.ops.onednn.qlinear_pointwise(
        x, scale, zero, weight, scales, zeros, bias, to_scale, to_zero, dtype, after, scalars, form
    )
"""


@functools.cache
def scripts() -> Any:
    return torch.jit.CompilationUnit(SCRIPTS)


def recording() -> bool:
    return bool(torch.jit.is_tracing())  # type: ignore[attr-defined, no-untyped-call]


def captured(layer: ShortLayer, x: Tensor, asking: Tensor | None) -> ShortLayer:
    """`layer`, a module, recorded as it is called with these; itself where torch cannot record it.

    It must do the same for any number of rows of `x`, which is tried. `asking`: None here is None in every call.
    """
    given = (x,) if asking is None else (x, asking)
    try:
        with warnings.catch_warnings():  # that torch.jit will go one day
            warnings.simplefilter("ignore")
            run = torch.jit.trace(layer, given, check_trace=False).forward  # type: ignore[no-untyped-call]
        for count in (1, 2):
            several = x.repeat(count, 1)
            if not torch.equal(run(several, *given[1:]), layer(several, asking)):
                raise RuntimeError("it answers otherwise for another number of rows")
    except (AttributeError, RuntimeError, NotImplementedError, TypeError) as reason:
        _say(str(reason).split("\n")[0])
        return layer
    return lambda x, asking: run(x) if asking is None else run(x, asking)


@functools.cache
def _say(reason: str) -> None:
    logger.info("Python runs the layers of short sequences, since torch cannot record them: %s", reason)
