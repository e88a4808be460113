"""A function's operators without the Python between them: torch's interpreter runs what one call of it did.

One short sequence spends 10 to 50 µs in each operator and up to a quarter of its time between them.
"""

from __future__ import annotations

import functools
import logging
import warnings
from collections.abc import Callable
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


def captured(layer: ShortLayer, x: Tensor, asking: Tensor | None, mask: Tensor | None) -> ShortLayer:
    """`layer`, a module, recorded as it is called with these; itself where torch cannot record it.

    It must do the same for any number of rows of `x`, which is tried. `asking`, `mask`: None here is None in every
    call.
    """
    given = {name: one for name, one in (("x", x), ("asking", asking), ("mask", mask)) if one is not None}
    try:
        with warnings.catch_warnings():  # that torch.jit will go one day
            warnings.simplefilter("ignore")
            module = torch.jit.trace(layer, example_kwarg_inputs=given, check_trace=False)  # type: ignore[no-untyped-call]
        run = _with_what_is_there(module.forward)
        for count in (1, 2):
            several, longer = x.repeat(count, 1), None if mask is None else mask.repeat(1, 1, 1, count)
            if not torch.equal(run(several, asking, longer), layer(several, asking, longer)):
                raise RuntimeError("it answers otherwise for another number of rows")
    except (AttributeError, RuntimeError, NotImplementedError, TypeError) as reason:
        _say(str(reason).split("\n")[0])
        return layer
    return run


def _with_what_is_there(recorded: Callable[..., Tensor]) -> ShortLayer:
    """What is recorded takes no None."""
    return lambda *given: recorded(*[one for one in given if one is not None])


@functools.cache
def _say(reason: str) -> None:
    logger.info("Python runs the layers of short sequences, since torch cannot record them: %s", reason)
