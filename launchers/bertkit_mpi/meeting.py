"""A meeting place for collectives other than MPI's, where MPI started the processes: told through MPI."""

from __future__ import annotations

import socket
from dataclasses import dataclass

import numpy as np

from bertkit.plugin import World
from bertkit_mpi.library import Library, checked, peers

LONGEST = 64  # bytes of an address


@dataclass(frozen=True)
class MpiPlace:
    """While somebody is met at it, a rank that ends does not wait for the others in MPI."""

    address: str
    library: Library

    def open(self) -> None:
        self.library.open()

    def close(self) -> None:
        self.library.close()


def meet(world: World) -> MpiPlace:
    """ "host:port" of the first rank. A collective of all ranks. Raises UserError where MPI sees another world."""
    library = checked(world)
    text = np.zeros(LONGEST, np.uint8)
    if world.is_first:
        own = _free_place(world).encode()
        text[: len(own)] = list(own)
    with peers(library.mpi):
        library.mpi.COMM_WORLD.Bcast(text)
    return MpiPlace(text.tobytes().rstrip(b"\0").decode(), library)


def _free_place(world: World) -> str:
    with socket.socket() as listener:
        listener.bind(("", 0))
        port = listener.getsockname()[1]
    if world.local_size == world.size:
        return f"127.0.0.1:{port}"
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect(("192.0.2.1", port))  # a documentation address (RFC 5737), nothing is sent: the default route's
        return f"{probe.getsockname()[0]}:{port}"
