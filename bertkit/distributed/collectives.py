"""What the ranks of one job say to each other through host memory: sums of flat buffers, gathered rows.

The libraries are plug-ins (entry points in `bertkit.collectives`), as are the ways to find a meeting place without one
from the launcher (`bertkit.rendezvous`). `join` chooses; what it returns watches every wait and names who is lost.
"""

from __future__ import annotations

import logging
import os
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, entry_points, version
from typing import Any, Protocol

import numpy as np

from bertkit.distributed.host_sums import Add, FlatType, empty
from bertkit.distributed.watchdog import Watchdog
from bertkit.distributed.world import MPIS, World
from bertkit.errors import PeersLost, UserError, nearest

logger = logging.getLogger(__name__)
GROUP = "bertkit.collectives"
RENDEZVOUS = "bertkit.rendezvous"
GOING = 1.0  # seconds that a rank whose connections broke may take to end; the launcher is to see its exit first
GRACE = 15.0  # seconds that a library's own timeout may come after `timeout`, for a better message


class Absent(UserError):
    """This library cannot be used here; another may."""


class Flat(Protocol):
    """A buffer of this rank that is summed over all ranks."""

    array: np.ndarray  # (count,) float32, or uint16 that holds bf16's bits; not to be used after `close`

    def sum_(self, start: int, stop: int) -> None:
        """Sum this stretch over the ranks, in place, on every rank. A collective: the same stretches, in the same
        order, everywhere."""


class Collectives(Protocol):
    """One library. Its methods raise ConnectionError where other ranks are lost."""

    name: str
    reason: str  # why it does other than it was asked; empty: it does not

    def flat(self, count: int, dtype: FlatType, add: Add) -> Flat:
        """A collective. `add` sums where the library itself does not."""

    def gather(self, rows: np.ndarray) -> np.ndarray:
        """(N_r, …) of each rank r -> (sum N_r, …), in rank order, on every rank; only N differs. A collective."""

    def close(self) -> None:
        """Leave after all others have come here too. A collective."""

    def abandon(self) -> None:
        """Leave at once, after an error; the others may be waiting, so the process must end soon."""


class _WatchedFlat:
    def __init__(self, owner: Joined, inner: Flat) -> None:
        self.array = inner.array
        self._owner, self._inner = owner, inner

    def sum_(self, start: int, stop: int) -> None:
        with self._owner.together("in a sum"):
            self._inner.sum_(start, stop)


class Joined:
    """The ranks of `world` through one library; every wait for them is watched."""

    def __init__(self, inner: Collectives, world: World, reason: str, watchdog: Watchdog) -> None:
        self.world = world
        self.name = inner.name
        self.reason = "; ".join(part for part in (reason, inner.reason) if part)
        self._inner, self._watchdog = inner, watchdog
        self._lost = False

    def at(self, place: str) -> None:
        """Where this rank is, as "at update 7": for the message if it should wait in vain."""
        self._watchdog.place = place

    def flat(self, count: int, dtype: FlatType, add: Add) -> Flat:
        with self.together("for a buffer"):
            return _WatchedFlat(self, self._inner.flat(count, dtype, add))

    def gather(self, rows: np.ndarray) -> np.ndarray:
        if rows.dtype.hasobject:
            raise TypeError(f"rows of {rows.dtype} cannot be gathered")
        with self.together("in a gather"):
            return self._inner.gather(np.ascontiguousarray(rows))

    def close(self) -> None:
        """Wait for the others, or, where an error is under way, leave at once so that they learn of it."""
        try:
            if self._lost or sys.exc_info()[0] is not None:
                self._inner.abandon()
                return
            with self.together("at the end"):
                self._inner.close()
        finally:
            self._watchdog.close()

    @contextmanager
    def together(self, what: str) -> Iterator[None]:
        try:
            with self._watchdog.waiting(what):
                yield
        except ConnectionError as error:
            self._lost = True
            time.sleep(GOING)
            place = " ".join(part for part in (self._watchdog.place, what) if part)
            raise PeersLost(
                f"rank {self.world.rank} lost the other ranks {place}: {error}",
                "one of them has ended: its own message says why",
            ) from None


@dataclass
class _Own:
    """A buffer that is summed over one rank."""

    array: np.ndarray

    def sum_(self, start: int, stop: int) -> None: ...


class _Nobody:
    """The library of a process that is alone."""

    name, reason = "none", ""

    def flat(self, count: int, dtype: FlatType, add: Add) -> Flat:
        return _Own(empty(count, dtype))

    def gather(self, rows: np.ndarray) -> np.ndarray:
        return rows

    def close(self) -> None: ...

    abandon = close


def join(world: World, asked: str = "auto", timeout: float = 600.0, env: Mapping[str, str] = os.environ) -> Joined:
    """Meet the other ranks. A collective; may be called again after, or beside, an earlier one.

    `asked`: a library's name, or auto; `timeout`: seconds that a rank waits for the others before it ends itself.
    Raises UserError where they cannot meet.
    """
    watchdog = Watchdog(world.rank, timeout)
    if world.size == 1:
        return Joined(_Nobody(), world, "one process", watchdog)
    libraries = _libraries()
    name, reason = (asked, "asked for") if asked != "auto" else choose(world, _installed("mpi4py"), env, set(libraries))
    if name not in libraries:
        raise UserError(f"there are no collectives {name!r} here", nearest(name, libraries))
    patient = Watchdog(world.rank, timeout + 2 * GRACE)  # a library that gives up by itself says more
    try:
        with patient.waiting("to begin"):
            inner, reason = _load(libraries, name, reason, asked, world, timeout)
    except ConnectionError as error:
        raise PeersLost(f"rank {world.rank} did not meet the other ranks: {error}", "see what they said") from None
    finally:
        patient.close()
    if inner.name == "gloo" and asked == "auto" and wired(world, env) and world.is_first:
        logger.warning("%s started the ranks, but they meet through gloo, which is slower; %s", world.launcher, reason)
    return Joined(inner, world, reason, watchdog)


def _load(
    libraries: Mapping[str, Any], name: str, reason: str, asked: str, world: World, timeout: float
) -> tuple[Collectives, str]:
    try:
        return libraries[name].load()(world, timeout), reason
    except Absent as error:
        if asked != "auto" or not world.address or "gloo" not in libraries:
            raise
        return _load(libraries, "gloo", f"{name} is not usable: {error}", "gloo", world, timeout)
    except ImportError as error:
        raise UserError(f"collectives {name} do not load: {error}", "install what they need") from None


def _libraries() -> dict[str, Any]:
    return {point.name: point for point in entry_points(group=GROUP)}


def _installed(package: str) -> bool:
    try:
        version(package)
    except PackageNotFoundError:
        return False
    return True


def wired(world: World, env: Mapping[str, str]) -> bool:
    """Whether what started the ranks lets MPI join them."""
    return world.launcher in MPIS or (
        world.launcher == "Slurm" and bool({"PMIX_RANK", "PMI_RANK"} & env.keys())  # srun --mpi=pmix, --mpi=pmi2
    )


def choose(world: World, mpi4py: bool, env: Mapping[str, str], known: set[str]) -> tuple[str, str]:
    """(library, why) for `auto`: MPI where MPI started the processes, through shared memory where they share a host."""
    if not wired(world, env):
        return "gloo", f"auto: {world.launcher} starts no MPI"
    if not mpi4py:
        return "gloo", "auto: mpi4py is not installed; pip install 'bertkit[mpi]'"
    if world.local_size > 1 and "window" in known:
        return "window", f"auto: {world.launcher} started {world.local_size} ranks on this host, which share memory"
    if "mpi" in known:
        return "mpi", f"auto: started by {world.launcher}"
    return "gloo", "auto: no MPI plug-in is installed"


class Rendezvous(Protocol):
    """Where ranks meet whom no launcher gave an address."""

    @property
    def address(self) -> str: ...  # "host:port"

    def open(self) -> None:
        """Somebody is met here: until as many `close`, a rank that ends does so without waiting for the others."""

    def close(self) -> None: ...


@dataclass(frozen=True)
class Given:
    """A place that the launcher named."""

    address: str

    def open(self) -> None: ...

    close = open


def meeting_place(world: World) -> Rendezvous:
    """The launcher's address, or one that a plug-in finds; finding is a collective. Raises UserError without either."""
    if world.address:
        return Given(world.address)
    for point in entry_points(group=RENDEZVOUS):
        if world.launcher in (*MPIS, "Slurm") and _installed("mpi4py"):
            place: Rendezvous = point.load()(world)
            return place
    raise UserError(
        f"{world.launcher} started {world.size} processes but MASTER_ADDR and MASTER_PORT are not set",
        "export both to every process (the first process's host and a free port)"
        + ("" if world.launcher == "torchrun" else ", or pip install 'bertkit[mpi]'"),
    )
