"""Dropout masks from raw random words: 16 bits a place, compared straight into the dtype of the mask.

The words come from LANES independent streams, of which each thread draws some: NumPy lets others run meanwhile. The
masks are the same for any number of threads.

Source: SFC64, Chris Doty-Humphrey 2013, as in NumPy.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from concurrent.futures import Executor

import numpy as np
import torch
from torch import Tensor

from bertkit_torch.dropout import Shape

LANES = 8
FEW = 1 << 16  # places; a mask of fewer comes from the first lane alone
PLACES_OF_A_WORD = 4


class Masks:
    """The masks of one forward pass, one after another.

    The rate is rounded to a multiple of 1/65536, and the scale follows the rounded rate.
    """

    def __init__(self, key: np.random.SeedSequence, pool: Executor | None = None) -> None:
        keys = [np.random.SeedSequence(key.entropy, spawn_key=(lane,)) for lane in range(LANES)]
        self.lanes = [np.random.SFC64(lane) for lane in keys]
        self.pool = pool

    def __call__(self, shape: Shape, dtype: torch.dtype, rate: float) -> tuple[Tensor, float]:
        dropped = min(round(rate * 65536), 65535)
        kept = torch.empty(shape, dtype=dtype)
        places = kept.view(-1)
        start = 0
        for words in self._words(math.prod(shape)):
            piece = places[start : start + len(words) * PLACES_OF_A_WORD]
            torch.ge(torch.from_numpy(words.view(np.int16))[: len(piece)], dropped - 32768, out=piece)
            start += len(piece)
        return kept, 65536 / (65536 - dropped)

    def _words(self, places: int) -> Iterator[np.ndarray]:
        """Pieces of 64-bit words that together serve so many places."""
        lanes = self.lanes[:1] if places < FEW else self.lanes
        most = -(-places // (PLACES_OF_A_WORD * len(lanes)))
        if self.pool is None or len(lanes) == 1:
            return (lane.random_raw(most) for lane in lanes)
        return self.pool.map(lambda lane: lane.random_raw(most), lanes)
