"""Collectives by MPI messages.

No MPI reduces bf16: its slices are exchanged, summed in float32 on one rank each, rounded once, and returned.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from bertkit.plugin import AddSums as Add
from bertkit.plugin import Flat, FlatType, World
from bertkit.plugin import empty_sum_buffer as empty
from bertkit_mpi.library import checked, peers


class MpiCollectives:
    name = "mpi"
    reason = ""

    def __init__(self, world: World, timeout: float) -> None:
        self.world = world
        self.library = checked(world)
        self.library.open()
        self.mpi = self.library.mpi
        with peers(self.mpi):
            self.comm = self.mpi.COMM_WORLD.Dup()

    def flat(self, count: int, dtype: FlatType, add: Add) -> Flat:
        return _MpiFlat(self.mpi, self.comm, empty(count, dtype), add)

    def gather(self, rows: np.ndarray) -> np.ndarray:
        counts = np.empty(self.world.size, np.int64)
        with peers(self.mpi):
            self.comm.Allgather(np.array([len(rows)], np.int64), counts)
            width = rows.dtype.itemsize * int(np.prod(rows.shape[1:]))
            found = np.empty((int(counts.sum()), *rows.shape[1:]), rows.dtype)
            if found.nbytes == 0:
                return found
            row = self.mpi.BYTE.Create_contiguous(width).Commit()  # MPI counts to 2^31: rows, not bytes
            self.comm.Allgatherv([rows, len(rows), row], [found, counts, row])
            row.Free()
        return found

    def close(self) -> None:
        with peers(self.mpi):
            self.comm.Barrier()
            self.comm.Free()
        self.library.close()

    def abandon(self) -> None:
        """The library stays open, so it will not wait for the others when Python exits."""


class _MpiFlat:
    def __init__(self, mpi: Any, comm: Any, array: np.ndarray, add: Add) -> None:
        self.array = array
        self._mpi, self._comm, self._add = mpi, comm, add

    def sum_(self, start: int, stop: int) -> None:
        if stop > start:
            with peers(self._mpi):
                sum_over(self._mpi, self._comm, self.array[start:stop], self._add)


def sum_over(mpi: Any, comm: Any, values: np.ndarray, add: Add) -> None:
    """Sum `values`, float32 or bf16's bits, over the ranks of `comm`, in place."""
    if values.dtype == np.float32:
        comm.Allreduce(mpi.IN_PLACE, values)
        return
    size, rank = comm.Get_size(), comm.Get_rank()
    bounds = slices(0, len(values), size)
    counts = np.diff(bounds)
    mine = np.empty((size, int(counts[rank])), np.uint16)
    places = np.arange(size) * counts[rank]
    unit = mpi.UINT16_T
    comm.Alltoallv([values, counts, bounds[:-1], unit], [mine, np.full(size, counts[rank]), places, unit])
    summed = np.empty(int(counts[rank]), np.uint16)
    add(summed, list(mine))
    comm.Allgatherv([summed, len(summed), unit], [values, counts, bounds[:-1], unit])


def slices(start: int, stop: int, parts: int) -> np.ndarray:
    """(parts + 1,) bounds of nearly equal stretches."""
    return start + (stop - start) * np.arange(parts + 1) // parts
