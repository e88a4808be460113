"""The MPI library of this process, through mpi4py: loaded once, checked against the launcher, ended in order.

mpi4py would finish MPI when Python exits, and MPI then waits for all other ranks: one that leaves with an error would
hang until they fail too. So MPI is finished only when all that was opened was closed and no exception ended the
process; one that leaves otherwise has an exit code that makes the launcher end the job.
"""

from __future__ import annotations

import atexit
import functools
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from bertkit.plugin import Absent, UserError, World

_CURE = "pip install 'bertkit[mpi]', and name the library of the mpirun that started this in MPI4PY_LIBMPI"


class Library:
    """MPI, and how many users it has that the other ranks may wait for."""

    def __init__(self, mpi: Any) -> None:
        self.mpi = mpi
        self._open = 0
        atexit.register(self._finish)

    def open(self) -> None:
        self._open += 1

    def close(self) -> None:
        self._open -= 1

    def _finish(self) -> None:
        if self._open == 0 and not hasattr(sys, "last_value") and not self.mpi.Is_finalized():
            self.mpi.Finalize()

    @property
    def version(self) -> str:
        return str(self.mpi.Get_library_version()).strip("\0\n ").splitlines()[0].split(", package")[0]


@functools.cache
def library() -> Library:
    """Loads MPI. Raises Absent where mpi4py or the library is missing."""
    try:
        import mpi4py

        # Open MPI's wheel complains aloud about UCX on machines without its devices; only shared windows are used here
        os.environ.setdefault("OMPI_MCA_osc", "^ucx")
        mpi4py.rc.finalize = False
        from mpi4py import MPI
    except (ImportError, RuntimeError) as error:  # without a library mpi4py says RuntimeError
        raise Absent(f"mpi4py does not load: {_reason(error)}", _CURE) from None
    return Library(MPI)


def _reason(error: Exception) -> str:
    """In one line. mpi4py has a line for each file that it tried: the first that is there says why, else the first."""
    first, *tried = str(error).splitlines() or [type(error).__name__]
    there = [line for line in tried if "No such file" not in line]
    return ": ".join([first, *(there or tried)[:1]])


def checked(world: World) -> Library:
    """The library. Raises UserError where it does not see the launcher's world."""
    found = library()
    size, rank = found.mpi.COMM_WORLD.Get_size(), found.mpi.COMM_WORLD.Get_rank()
    if (size, rank) != (world.size, world.rank):
        raise UserError(
            f"{world.launcher} started rank {world.rank} of {world.size}, but {found.version} sees rank {rank} of "
            f"{size}: an mpirun of one MPI with the library of another; {world.size} processes would each train a "
            "model of their own",
            "name that mpirun's own library in MPI4PY_LIBMPI, start with the mpirun of this one, or choose "
            "ranks.collectives=gloo",
        )
    return found


@contextmanager
def peers(mpi: Any) -> Iterator[None]:
    """MPI's errors are those of lost ranks."""
    try:
        yield
    except mpi.Exception as error:
        raise ConnectionError(str(error)) from None
