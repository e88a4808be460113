"""The machine that this process may use: cores by socket and memory node, within its cpuset and cgroup."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Core:
    """One physical core."""

    cpus: tuple[int, ...]  # its logical CPUs that may be used, ascending
    socket: int
    node: int  # memory (NUMA) node; -1: not known


@dataclass(frozen=True)
class Machine:
    """The cores that may be used, by socket, then node, then number."""

    cores: tuple[Core, ...]
    quota: float | None = None  # cgroup limit in cores; None: no limit
    source: str = ""  # how it is known
