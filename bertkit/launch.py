"""What a launcher is: from what the user asked for, and the machine, to the processes that are to be started.

A launcher is a plug-in (entry points in `bertkit.launchers`). Its `plan` is a pure function, so that a plan can be shown
(`--dry-run`) and tested without starting anything; `bertkit/supervise.py` carries it out.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.metadata import entry_points
from typing import Literal, Protocol

from bertkit.errors import UserError, nearest
from bertkit.machine import Machine

GROUP = "bertkit.launchers"
Domain = Literal["machine", "socket", "numa"]
ThreadRule = Literal["share", "physical-minus-2", "logical-minus-2"]
Allocator = Literal["auto", "tcmalloc", "jemalloc", "system"]


@dataclass(frozen=True)
class Request:
    """What is to be started, as the user said it."""

    command: tuple[str, ...]  # bertkit's own words, as ("train", "-t", "mrpc")
    processes: int | None = None  # on each host; None: one for each card, else `per_domain` in each domain
    domain: Domain = "machine"  # what the processes are spread over and bound to
    per_domain: int = 1
    hosts: tuple[str, ...] = ()  # empty: this one
    cards: tuple[int, ...] = ()  # memory node of each accelerator of a host, -1: not known; empty: it has none
    thread_rule: ThreadRule = "share"
    reserve_cores: int = 0  # of each process's share, kept for communication
    allocator: Allocator = "auto"
    oversubscribe: bool = False  # more processes than cores
    interface: str = ""  # network, as eth0 or 10.0.0.0/24; empty: the launcher's own choice
    ssh_port: int = 0  # 0: ssh's own
    ssh_config: str = ""  # a file for `ssh -F`
    forward: tuple[str, ...] = ()  # names of further environment variables for every process
    port: int = 0  # of the rendezvous; 0: a free one
    python: str = "python3"  # that runs bertkit, on every host


@dataclass(frozen=True)
class Place:
    """What one process of a host is bound to."""

    cpus: tuple[int, ...] = ()  # logical CPUs; empty: not bound
    nodes: tuple[int, ...] = ()  # memory nodes of these; empty: not known
    cores: int = 1  # physical cores that it may count on


@dataclass(frozen=True)
class Process:
    """One process of the job, for showing: what will run, where, bound to what."""

    rank: int
    host: str
    local_rank: int
    place: Place
    argv: tuple[str, ...]
    env: Mapping[str, str]


@dataclass(frozen=True)
class LaunchPlan:
    """What starts the processes, and what they will be."""

    argv: tuple[str, ...]  # started here; it starts all processes
    env: Mapping[str, str]  # added to this environment
    processes: tuple[Process, ...]
    notes: tuple[str, ...] = ()  # what was chosen, and by which rule
    warnings: tuple[str, ...] = ()
    script: str = ""  # to be handed in instead of starting `argv`
    stop_signal: int = field(default=15)  # what makes `argv`'s processes save and end


class Launcher(Protocol):
    """One way to start processes."""

    name: str

    def plan(self, request: Request, machine: Machine, env: Mapping[str, str]) -> LaunchPlan:
        """Raises UserError where the request cannot be met here: a missing program, more processes than cores."""


def find_launcher(name: str) -> Launcher:
    """The installed launcher called `name`. Raises UserError, naming those there are."""
    points = {point.name: point for point in entry_points(group=GROUP)}
    if name not in points:
        raise UserError(f"there is no launcher {name!r} here", nearest(name, points))
    try:
        launcher: Launcher = points[name].load()()
    except ImportError as error:
        raise UserError(f"the launcher {name!r} does not load: {error}", "reinstall its package") from error
    return launcher
