"""Whether torch computes in int8 on this machine's CPU."""

from __future__ import annotations

from importlib import util

import pytest


def _works() -> bool:
    if util.find_spec("torch") is None:
        return False
    from bertkit_cpu.int8 import largest_weight

    return largest_weight() is not None


def weight_bits() -> int:
    """Of the cpu backend's weights in int8, on this machine."""
    from bertkit.model.int8 import INT8_WEIGHTS
    from bertkit_cpu.int8 import largest_weight

    return 8 if largest_weight() == INT8_WEIGHTS[8] else 7


needs_int8 = pytest.mark.skipif(not _works(), reason="torch has no int8 products for this CPU")
