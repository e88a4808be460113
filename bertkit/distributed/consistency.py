"""What the ranks of one job must have in common, compared before any work is done."""

from __future__ import annotations

import json
import platform
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from bertkit.errors import UserError

Gather = Callable[[np.ndarray], np.ndarray]  # (N_r, …) of every rank -> (sum N_r, …) on each, in rank order


def gather_json(gather: Gather, value: Any) -> list[Any]:
    """Each rank's value, in rank order, on every rank. A collective."""
    text = np.frombuffer(json.dumps(value).encode(), np.uint8)
    ends = np.cumsum(gather(np.array([len(text)], np.int64)))
    everything = gather(text).tobytes()
    return [json.loads(everything[end - size : end]) for end, size in zip(ends, np.diff(ends, prepend=0), strict=True)]


def agree(gather: Gather, facts: Mapping[str, Any], cure: str) -> None:
    """Compare `facts` over all ranks. A collective.

    Raises UserError on every rank alike, naming the first rank and fact that differ from the first rank's.
    """
    first, *others = gather_json(gather, {"host": platform.node(), "facts": dict(facts)})
    for rank, other in enumerate(others, 1):
        for name, value in first["facts"].items():
            if other["facts"].get(name) != value:
                raise UserError(
                    f"rank {rank} on {other['host']} has {name} = {other['facts'].get(name)!r}, "
                    f"rank 0 on {first['host']} has {value!r}",
                    cure,
                )


def anybody(gather: Gather, mine: bool) -> bool:
    """Whether this holds on any rank. A collective."""
    return bool(gather(np.array([mine], np.uint8)).any())


def everybody(gather: Gather, mine: bool) -> bool:
    """Whether this holds on every rank. A collective."""
    return bool(gather(np.array([mine], np.uint8)).all())
