"""Processes: their parents and children as Linux tells of them, and which one made a lock or a temporary file.

Elsewhere than on Linux nothing is told of parents and children, and nothing done. A killed process removes nothing
itself, so what it left says whose it was. A number of a process says something on its own machine only, and is given
out again; its start time tells the two apart. Containers on one machine may count their processes apart, so the space
of numbers belongs to the machine here.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import hashlib
import os
import platform
import signal
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

JOB = "BERTKIT_JOB"  # a name that the turns of one job have in common, of which one runs at a time
_PR_SET_PDEATHSIG, _PR_SET_CHILD_SUBREAPER = 1, 36  # prctl(2)


# ---- parents and children ----


def die_with_parent(parent: int | None = None) -> None:
    """From now on this process is killed when its parent is.

    A parent that knew its own number before this process began gives it: it may have been killed since then, of which
    the kernel tells nothing later (prctl(2)).
    """
    _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if parent is not None and sys.platform == "linux" and os.getppid() != parent:
        os.kill(os.getpid(), signal.SIGKILL)


def adopt_orphans() -> None:
    """From now on processes below this one whose parent ends become its children."""
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)


def _prctl(option: int, value: int) -> None:
    if sys.platform == "linux":
        with contextlib.suppress(OSError, AttributeError):
            ctypes.CDLL(None).prctl(option, value, 0, 0, 0)


def state(pid: int) -> str:
    """The process's state letter, T: stopped; "" where it cannot be known."""
    return (_stat(pid) or [""])[0]


def started(pid: int) -> int:
    """When the process began, in clock ticks since the machine's start; 0 where it cannot be known."""
    fields = _stat(pid)
    return int(fields[19]) if len(fields) > 19 and fields[19].isdecimal() else 0


def children(parent: int) -> list[int]:
    """The processes that have this parent."""
    pids = (int(path.name) for path in Path("/proc").glob("[0-9]*"))
    return [pid for pid in pids if _stat(pid)[1:2] == [str(parent)]]


def _stat(pid: int) -> list[str]:
    """The fields of /proc/PID/stat behind the name, which may hold spaces: state, parent, …; empty where not known."""
    return _text(Path(f"/proc/{pid}/stat")).rpartition(")")[2].split()


def _text(path: Path) -> str:
    """What one of the kernel's small files says; "" where it cannot be read."""
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return ""


# ---- whose a file is ----


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
    turn: int  # larger in a later turn of that job

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
        pid, started(pid), platform.node(), _hash(_text(Path("/etc/machine-id"))),
        _text(Path("/proc/sys/kernel/random/boot_id")),
        _link("/proc/self/ns/pid"), *_job(os.environ),
    )  # fmt: skip


def why_gone(owner: Owner, me: Owner) -> str:
    """In words why the owner is certainly no longer at work; "": it is, or that cannot be known from here."""
    if owner.place == me.place:
        return "that process is gone" if is_gone(owner.pid, owner.started) else ""
    if owner.job and owner.job == me.job and owner.turn < me.turn:
        return "it was of an earlier turn of this batch job"
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
    """The batch job and its turn: Slurm's, which counts them, or BERTKIT_JOB's, whose turns begin with a container."""
    if name := env.get("SLURM_JOB_ID", ""):
        turn = env.get("SLURM_RESTART_COUNT", "")
        return name[:40], int(turn) if turn.isascii() and turn.isdecimal() and len(turn) < 10 else 0
    name = env.get(JOB, "")
    return name[:100], began() if name else 0


def began(root: Path = Path("/")) -> int:
    """When the first process of this container, or machine, began, in seconds since 1970; 0 where it is not known."""
    boot = next((line for line in _text(root / "proc/stat").splitlines() if line.startswith("btime ")), "")
    fields = _text(root / "proc/1/stat").rpartition(")")[2].split()
    ticks = fields[19] if len(fields) > 19 else ""
    if not (boot[6:].isdecimal() and ticks.isdecimal() and len(boot) < 20 and len(ticks) < 20):
        return 0
    return int(boot[6:]) + int(ticks) // os.sysconf("SC_CLK_TCK")


def _link(path: str) -> str:
    try:
        return os.readlink(path)
    except OSError:
        return ""


def _hash(text: str) -> str:
    """The machine's number is not to be told, says its manual page."""
    return hashlib.sha256(f"bertkit {text}".encode()).hexdigest()[:16] if text else ""
