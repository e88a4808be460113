"""Numbered tasks on workers: processes of this host (`process_pool.py`), or those of a cluster.

A task is a pure function of its number, and what it writes is whole or absent: so any worker may do it, twice too, and
once more after a worker was killed. Clusters are plug-ins (entry points in `bertkit.workers`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from importlib.metadata import entry_points
from typing import Any, Protocol

from bertkit.errors import UserError, nearest
from bertkit.files.entry_points import by_name, load

GROUP = "bertkit.workers"
GO_ON = "what is finished is kept: the same command goes on"
Done = dict[str, Any]  # what JSON holds
Task = Callable[[int], Done]  # is sent to other processes, and imported there by its name: little may be in it


class Workers(Protocol):
    """Who does tasks."""

    def describe(self) -> str:
        """How many there are, and where: a few words."""

    def wait_idle(self, name: str) -> None:
        """Wait until none of them does a task of that name any more, as those of a command that was killed may."""

    def run(self, name: str, task: Task, numbers: Sequence[int]) -> Iterator[tuple[int, Done]]:
        """(number, `task(number)`) for all numbers, in the order in which they are done.

        What a worker that died has not finished is given to another, with a warning. Raises UserError where that does
        not help, and for a UserError of a task; whatever else a task raises is passed on.
        """


class Cluster(Protocol):
    """A kind of cluster. Importing it imports nothing of the cluster's own packages."""

    def connect(self, address: str | None) -> AbstractContextManager[Workers]:
        """The workers behind an address; None: as the cluster's own configuration has it.

        Raises UserError where its packages are not installed, nothing answers there, or it has no workers.
        """


def find_cluster(name: str) -> Cluster:
    """The installed kind of cluster called `name`. Raises UserError, naming those there are."""
    points = by_name(entry_points(group=GROUP))
    if name not in points:
        has = f"there are {', '.join(points)}" if points else "none is installed"
        raise UserError(f"--cluster {name!r} is not known: {has}", nearest(name, points) if points else "install one")

    def make(kind: type[Cluster]) -> Cluster:
        return kind()

    return load(points[name], "cluster", make)
