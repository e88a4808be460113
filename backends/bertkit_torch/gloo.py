"""Collectives by gloo, which every torch has: TCP between all ranks, also those of one host. It sums bf16 natively.

With more than two ranks gloo rounds a bf16 sum at every addition; the MPI plug-ins round once.
"""

from __future__ import annotations

import functools
import itertools
import os
import re
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import numpy as np
import torch
import torch.distributed

from bertkit.plugin import GRACE, Flat, FlatType, Rendezvous, UserError, World, meeting_place
from bertkit.plugin import AddSums as Add
from bertkit.plugin import empty_sum_buffer as empty

dist: Any = torch.distributed  # whose stubs leave most of what is used here out


@dataclass(frozen=True)
class Meeting:
    """The store that the ranks of this process's job meet at, once a process."""

    place: Rendezvous
    store: Any
    address: str  # own address, as the others reach it
    joins: Iterator[int] = field(default_factory=itertools.count)


@functools.cache
def _meetings() -> dict[World, Meeting]:
    """Those of this process: a port can be opened once."""
    return {}


def meet(world: World, timeout: float) -> Meeting:
    """A collective of all ranks, the first time. Raises UserError where they do not find each other."""
    if world not in _meetings():
        _meetings()[world] = _meet(world, timeout)
    return _meetings()[world]


def _meet(world: World, timeout: float) -> Meeting:
    place = meeting_place(world)
    host, _, port = place.address.rpartition(":")
    if not (port.isascii() and port.isdecimal() and len(port) < 10 and 0 < int(port) < 65536):
        raise UserError(f"MASTER_PORT = {port!r} is no port", "give a number from 1024 to 65535")
    ours = os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True"  # torchrun keeps a store of its own there
    patience = timedelta(seconds=timeout)
    try:
        store = dist.TCPStore(host, int(port), world.size if ours else None, ours and world.is_first, patience, ours)
        attempt = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
        return Meeting(place, dist.PrefixStore(f"bertkit/{attempt}", store), own_address(host, int(port), world))
    except (RuntimeError, ValueError, OSError) as error:
        raise _no_meeting(error, place.address, world, timeout) from None


def _no_meeting(error: Exception, address: str, world: World, timeout: float) -> UserError:
    text = str(error)
    if "EADDRINUSE" in text or "already in use" in text:
        port = address.rpartition(":")[2]
        return UserError(f"port {port} on this machine is taken", "export another MASTER_PORT to all processes")
    first = text.splitlines()[0] if text else type(error).__name__
    return UserError(
        f"rank {world.rank} of {world.size} did not meet the others at {address} within {timeout:g} s: {first}",
        "check that all were started, and that MASTER_ADDR and MASTER_PORT are right and reachable",
    )


def own_address(host: str, port: int, world: World) -> str:
    """This machine's address on the way to the first rank's. Sends nothing."""
    own = _towards(host, port)
    if own.startswith("127.") and world.local_size < world.size:  # many systems call their own name 127.0.1.1
        own = _towards("192.0.2.1", port)  # a documentation address (RFC 5737): tells of the default route
    return own


def _towards(host: str, port: int) -> str:
    family, kind, protocol, _, place = socket.getaddrinfo(host, port, type=socket.SOCK_DGRAM)[0]
    with socket.socket(family, kind, protocol) as probe:
        probe.connect(place)
        return str(probe.getsockname()[0])


@contextmanager
def _peers() -> Iterator[None]:
    """gloo says RuntimeError when a connection breaks or a timeout passes."""
    try:
        yield
    except RuntimeError as error:
        text = re.sub(r"^(\[\S+:\d+\] )+", "", str(error)).split(". This is typically")[0]  # its source file, advice
        raise ConnectionError(text or "gloo failed") from None


class GlooCollectives:
    name = "gloo"
    reason = ""

    def __init__(self, world: World, timeout: float) -> None:
        self.world = world
        meeting = meet(world, timeout)
        self._place = meeting.place
        self._store = dist.PrefixStore(str(next(meeting.joins)), meeting.store)
        options = dist.ProcessGroupGloo._Options()
        options._timeout = timedelta(seconds=timeout + GRACE)  # the watchdog is first, and says more
        names = [name for name in os.environ.get("GLOO_SOCKET_IFNAME", "").split(",") if name]
        create = dist.ProcessGroupGloo.create_device
        with _peers():
            options._devices = [create(interface=name) for name in names] or [create(hostname=meeting.address)]
            self.group = dist.ProcessGroupGloo(self._store, world.rank, world.size, options)
        self._place.open()

    def flat(self, count: int, dtype: FlatType, add: Add) -> Flat:
        return _GlooFlat(self, empty(count, dtype))

    def gather(self, rows: np.ndarray) -> np.ndarray:
        size = self.world.size
        counts = [torch.zeros(1, dtype=torch.int64) for _ in range(size)]
        with _peers():
            self.group.allgather([counts], [torch.tensor([len(rows)])]).wait()
        width = rows.dtype.itemsize * int(np.prod(rows.shape[1:]))  # bytes of a row
        most = max(int(count) for count in counts) * width
        padded = torch.zeros(most, dtype=torch.uint8)
        padded.numpy()[: rows.nbytes] = rows.reshape(-1).view(np.uint8)
        parts = [torch.empty(most, dtype=torch.uint8) for _ in range(size)]
        with _peers():
            self.group.allgather([parts], [padded]).wait()
        found = [
            part.numpy()[: int(count) * width].view(rows.dtype).reshape(int(count), *rows.shape[1:])
            for part, count in zip(parts, counts, strict=True)
        ]
        return np.concatenate(found)

    def close(self) -> None:
        with _peers():
            self.group.barrier().wait()
            # gloo aborts a peer that is still sending, and the first rank may be the store's keeper
            self._store.set(f"left {self.world.rank}", "")
            if self.world.is_first:
                self._store.wait([f"left {rank}" for rank in range(self.world.size)])
        del self.group
        self._place.close()

    def abandon(self) -> None:
        """The connections break when the process ends; breaking them here could abort it first."""


class _GlooFlat:
    def __init__(self, owner: GlooCollectives, array: np.ndarray) -> None:
        self.array = array
        self._owner = owner  # not its group: whoever still holds a buffer must not keep the connections
        whole = torch.from_numpy(array)
        self._tensor = whole if array.dtype == np.float32 else whole.view(torch.bfloat16)

    def sum_(self, start: int, stop: int) -> None:
        if stop > start:
            with _peers():
                self._owner.group.allreduce([self._tensor[start:stop]]).wait()
