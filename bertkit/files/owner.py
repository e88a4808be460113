"""Which process made a lock or a temporary file, and whether it is gone: a killed one removes nothing itself.

A number of a process says something on its own machine only, and is given out again; its start time tells the two
apart. Containers on one machine may count their processes apart, so the space of numbers belongs to the machine here.
"""

from __future__ import annotations

import functools
import hashlib
import os
import platform
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from bertkit.files.process_tree import started, state
from bertkit.files.system_files import read_text


@dataclass(frozen=True)
class Owner:
    """One process."""

    pid: int
    started: int  # in clock ticks since the machine's start; 0: not known
    host: str
    machine: str  # a hash of the machine's own number; "": it has none
    boot: str  # changes with every start of the machine
    space: str  # of process numbers
    job: str  # the batch job, where there is one
    turn: int  # how often that job had been queued again

    @property
    def place(self) -> str:
        """Twelve digits: the same for processes that can see each other's numbers."""
        text = "\0".join((self.host, self.machine, self.boot, self.space))
        return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()[:12]


def this_process() -> Owner:
    return _owner(os.getpid())


@functools.lru_cache(maxsize=1)
def _owner(pid: int) -> Owner:
    """Cached: a temporary file's name is asked for with every file. By the number, since a fork is another process."""
    return Owner(
        pid, started(pid), platform.node(), _hash(read_text(Path("/etc/machine-id"))),
        read_text(Path("/proc/sys/kernel/random/boot_id")),
        _link("/proc/self/ns/pid"), *_job(os.environ),
    )  # fmt: skip


def why_gone(owner: Owner, me: Owner) -> str:
    """In words why the owner is certainly no longer at work; "": it is, or that cannot be known from here."""
    if owner.job and owner.job == me.job and owner.turn < me.turn:
        return "it was of an earlier turn of this batch job"
    if owner.place == me.place:
        return "that process is gone" if is_gone(owner.pid, owner.started) else ""
    if owner.machine and (owner.host, owner.machine) == (me.host, me.machine) and owner.boot != me.boot:
        return "the machine was started anew since"
    return ""


def is_gone(pid: int, since: int) -> bool:
    """Whether the process of this machine with this number and start time has ended."""
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return True
    except PermissionError:
        pass  # of another user; /proc may hide it, but it is there
    if state(pid) in ("Z", "X"):  # ended, and only not yet asked for its exit code
        return True
    return bool(since and started(pid) and started(pid) != since)


def _job(env: Mapping[str, str]) -> tuple[str, int]:
    turn = env.get("SLURM_RESTART_COUNT", "")
    return env.get("SLURM_JOB_ID", "")[:40], int(turn) if turn.isascii() and turn.isdecimal() and len(turn) < 10 else 0


def _link(path: str) -> str:
    try:
        return os.readlink(path)
    except OSError:
        return ""


def _hash(text: str) -> str:
    """The machine's number is not to be told, says its manual page."""
    return hashlib.sha256(f"bertkit {text}".encode()).hexdigest()[:16] if text else ""
