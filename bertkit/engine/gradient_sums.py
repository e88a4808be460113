"""Gradients of all ranks summed through host memory, for engines whose framework has nothing of its own for it.

Legend: P parameters.
"""

from __future__ import annotations

import time
from collections.abc import Sequence

import numpy as np

from bertkit.distributed.collectives import Flat, join
from bertkit.distributed.host_sums import add
from bertkit.distributed.world import World
from bertkit.engine.interface import Exchange


class HostSums:
    """One flat buffer of all gradients and, after them, the loss; for a process that is alone there is none."""

    def __init__(self, world: World, exchange: Exchange, sizes: Sequence[int]) -> None:
        """`sizes`: (P,) elements of each gradient."""
        self.world, self.sizes = world, list(sizes)
        self.seconds = 0.0  # that were waited for the sums so far
        self._joined = join(world, exchange.collectives, exchange.timeout)
        self._flat: Flat | None = None

    def at(self, place: str) -> None:
        """Where this rank is, for the message if it should wait in vain."""
        self._joined.at(place)

    def sum_(self, loss: float, gradients: Sequence[np.ndarray]) -> tuple[float, list[np.ndarray]]:
        """(loss, flat gradients) -> their sums over the ranks, float32; valid until the next call. A collective."""
        start = time.perf_counter()
        count = sum(self.sizes)
        if self._flat is None:
            self._flat = self._joined.flat(count + 1, "fp32", add)
        array = self._flat.array
        np.concatenate([*gradients, [loss]], out=array, casting="same_kind")
        self._flat.sum_(0, count + 1)
        self.seconds += time.perf_counter() - start
        return float(array[count]), np.split(array[:count], np.cumsum(self.sizes)[:-1])

    def gather(self, rows: np.ndarray) -> np.ndarray:
        """(N_r, …) of each rank -> all of them, in rank order, on every rank."""
        return self._joined.gather(rows)

    def describe(self) -> dict[str, str]:
        if self.world.size == 1:
            return {}
        return {"collectives": f"{self._joined.name} ({self._joined.reason}), fp32 gradients"}

    def close(self) -> None:
        self._joined.close()
