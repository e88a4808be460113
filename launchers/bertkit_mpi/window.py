"""Collectives by memory that the ranks of one host share, and by MPI messages between hosts.

Every rank's buffer is a segment that its neighbours read: each sums one slice of all segments, sends it on to its
counterparts on other hosts, and takes the other slices back. A bf16 sum is rounded once on a host, once more between
hosts.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np

from bertkit.plugin import AddSums as Add
from bertkit.plugin import Flat, FlatType, World
from bertkit_mpi.collectives import MpiCollectives, slices, sum_over
from bertkit_mpi.library import peers


class WindowCollectives(MpiCollectives):
    name = "window"

    def __init__(self, world: World, timeout: float) -> None:
        super().__init__(world, timeout)
        self._windows: list[Any] = []
        with peers(self.mpi):
            self.local = self.comm.Split_type(self.mpi.COMM_TYPE_SHARED, key=world.rank)
            self.across = self.comm.Split(self.local.Get_rank(), key=world.rank)
            sizes = np.empty(world.size, np.int64)
            self.comm.Allgather(np.array([self.local.Get_size()], np.int64), sizes)
        if sizes.min() != sizes.max():
            self.name = "mpi"
            self.reason = f"no shared memory: hosts have {sizes.min()} to {sizes.max()} ranks"

    def flat(self, count: int, dtype: FlatType, add: Add) -> Flat:
        if self.name == "mpi":
            return super().flat(count, dtype, add)
        kind = np.dtype(np.float32 if dtype == "fp32" else np.uint16)
        with peers(self.mpi):
            bytes_ = max(count, 1) * kind.itemsize
            window = self.mpi.Win.Allocate_shared(bytes_, kind.itemsize, comm=self.local)
            window.Lock_all(self.mpi.MODE_NOCHECK)
            self._windows.append(window)
            segments = [
                np.frombuffer(window.Shared_query(rank)[0], kind, count) for rank in range(self.local.Get_size())
            ]
        segments[self.local.Get_rank()][:] = 0
        return _SharedFlat(self, window, segments, add)

    def close(self) -> None:
        with peers(self.mpi):
            for window in self._windows:
                window.Unlock_all()
                window.Free()
            self.across.Free()
            self.local.Free()
        super().close()


class _SharedFlat:
    def __init__(self, owner: WindowCollectives, window: Any, segments: list[np.ndarray], add: Add) -> None:
        self.array = segments[owner.local.Get_rank()]
        self._owner, self._window, self._segments, self._add = owner, window, segments, add

    def sum_(self, start: int, stop: int) -> None:
        owner, local = self._owner, self._owner.local
        bounds = slices(start, stop, local.Get_size())
        pieces = [slice(int(first), int(last)) for first, last in pairwise(bounds)]
        mine = pieces[local.Get_rank()]
        with peers(owner.mpi):
            self._meet()  # all have written
            self._add(self.array[mine], [segment[mine] for segment in self._segments])
            if owner.across.Get_size() > 1 and mine.stop > mine.start:
                sum_over(owner.mpi, owner.across, self.array[mine], self._add)
            self._meet()  # all slices are summed
            for segment, piece in zip(self._segments, pieces, strict=True):
                if segment is not self.array:
                    self.array[piece] = segment[piece]
            self._meet()  # all have read, so that each may write again

    def _meet(self) -> None:
        self._window.Sync()
        self._owner.local.Barrier()
        self._window.Sync()
