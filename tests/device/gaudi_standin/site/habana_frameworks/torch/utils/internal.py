"""The execution mode, fixed when the library is loaded."""

from __future__ import annotations

from habana_frameworks import _sim


def is_lazy() -> bool:
    return _sim.LAZY
