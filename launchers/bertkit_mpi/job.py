"""What the options for one mpirun are made of, and what comes out; the same for all of them."""

from __future__ import annotations

import signal
from collections.abc import Mapping
from dataclasses import dataclass, field

from bertkit.plugin import Binding, Machine, Request
from bertkit_mpi.mpirun import Mpirun

SSH_SECONDS = 10  # until a host that does not answer is an error


@dataclass(frozen=True)
class Job:
    request: Request
    machine: Machine
    where: tuple[Binding, ...]  # of one host, by local rank
    mpirun: Mpirun
    is_root: bool
    names: tuple[str, ...]  # variables that every rank gets

    @property
    def processes(self) -> int:
        """On all hosts."""
        return len(self.where) * max(1, len(self.request.hosts))

    @property
    def bound(self) -> bool:
        return all(place.cpus for place in self.where)


@dataclass(frozen=True)
class Line:
    """What one kind of mpirun is told."""

    options: tuple[str, ...]
    words: str  # the mapping
    binds: bool  # mpirun binds each rank to its CPUs; else bertkit.launch.rank_process does
    env: Mapping[str, str] = field(default_factory=dict)
    usual: Mapping[str, str] = field(default_factory=dict)  # variables where the user has set none of the name
    notes: tuple[str, ...] = ()
    stop_signal: int = signal.SIGTERM
    lost_peer_codes: tuple[int, ...] = ()


def ssh_words(request: Request) -> str:
    """Options of ssh, in one string as every mpirun wants them. Nobody is there to type a password."""
    words = ["-p", str(request.ssh_port)] if request.ssh_port else []
    words += ["-F", request.ssh_config] if request.ssh_config else []
    # ServerAlive…: an ssh whose far end has gone silent ends by itself, and with it the far end's session
    options = ("BatchMode=yes", f"ConnectTimeout={SSH_SECONDS}", "ServerAliveInterval=5", "ServerAliveCountMax=3")
    return " ".join([*words, *(f"-o {option}" for option in options)])
