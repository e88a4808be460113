"""Carries out a launch plan: starts it, passes the ranks' lines on, and leaves nothing running when it ends."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import IO

from bertkit.errors import PeersLost, UserError
from bertkit.files.processes import adopt_orphans, children
from bertkit.launch.interface import LaunchPlan

LINE = re.compile(r"\[rank (\d+) on ([^\]]*)\]([!?=]?) (.*)", re.DOTALL)  # as bertkit/launch/rank_process.py writes it
TAIL = 40  # last lines of a rank that are kept: a traceback and what was before it
POLL = 0.1  # seconds
NOT_ALL = -1
STOPS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGALRM)  # ask us to end the job
STOP_CODES = (130, 143)  # of a rank that was asked to stop: by Ctrl-C, by another signal


@dataclass(frozen=True)
class Failure:
    """How a rank ended that did not end well."""

    rank: int
    host: str
    code: int
    text: str  # in words
    tail: tuple[str, ...]  # its last lines


@dataclass(frozen=True)
class Ended:
    """How the job ended."""

    code: int  # of the program that started the processes; NOT_ALL: 0, but not every rank said that it was done
    failure: Failure | None  # the first that was no consequence of another
    stopped: int  # the exit code that a signal asks for, a rank's own; 0: none did
    still: str = ""  # a rank that was seen standing still
    launcher_lines: tuple[str, ...] = ()  # what the starting program itself had to say
    codes: frozenset[int] = frozenset()  # of all ranks that did not end well


@dataclass
class OutputFollower:
    """Shows the ranks' lines and remembers what explains a failure. Its methods are called from two threads."""

    tag: bool  # show every rank's lines with their labels, not only the first rank's
    folder: Path | None = None  # for a file of each rank's lines
    lost_peer_codes: tuple[int, ...] = ()  # the plan's
    tails: dict[int, deque[str]] = field(default_factory=dict)
    failures: list[Failure] = field(default_factory=list)
    others: deque[str] = field(default_factory=lambda: deque(maxlen=40))  # lines of no rank
    still: str = ""
    done: set[int] = field(default_factory=set)  # ranks that ended well
    lock: threading.Lock = field(default_factory=threading.Lock)

    def line(self, text: str, stream: IO[str]) -> None:
        found = LINE.search(text)
        with self.lock:
            if found is None:
                if text.strip():
                    self.others.append(text)
                return
            rank, host, kind, said = int(found[1]), found[2], found[3], found[4]
            code, _, words = said.partition(" ")
            if kind == "!" and code.isdecimal():  # else a line whose pieces were mixed on the way
                self.failures.append(Failure(rank, host, int(code), words, tuple(self.tails.get(rank, ()))))
                return
            if kind == "=":
                self.done.add(rank)
                return
            if kind == "?":
                self.still = f"rank {rank} on {host} {said}"
            else:
                self.tails.setdefault(rank, deque(maxlen=TAIL)).append(said)
                self._keep(rank, said)
            if self.tag or kind == "?":
                _show(found[0], stream)
            elif rank == 0 and not said.startswith("bertkit: "):  # errors are told once, at the end
                _show(said, stream)

    def _keep(self, rank: int, said: str) -> None:
        if self.folder is not None:
            path = self.folder / f"rank-{rank}.log"
            with contextlib.suppress(OSError), path.open("a", encoding="utf-8") as file:  # a full disk ends no job
                file.write(said + "\n")

    def first(self, stopped: bool) -> Failure | None:
        """The failure that the others follow from, as far as can be told.

        A library (an accelerator's, MPI's) ends the ranks that lost another one, maybe before that one's end is seen.
        """
        by_library = {128 + signal.SIGABRT, *self.lost_peer_codes}
        causes = [f for f in self.failures if f.code != PeersLost.exit_code and not (stopped and f.code in STOP_CODES)]
        not_told_to_end = [f for f in causes if f.code != 128 + signal.SIGTERM]
        of_themselves = [f for f in not_told_to_end if f.code not in by_library]
        return next(iter([*of_themselves, *not_told_to_end, *causes, *([] if stopped else self.failures)]), None)


def _show(text: str, stream: IO[str]) -> None:
    with contextlib.suppress(OSError):  # nobody reads any more, as behind `| head`: the job goes on
        print(text, file=stream, flush=True)


def supervise(plan: LaunchPlan, tag: bool, grace: float, folder: Path | None = None) -> Ended:
    """Start `plan.argv` and follow it to its end; all of it is gone when this returns.

    A signal of `STOPS` asks the ranks to save and end, and has them killed after `grace` seconds; so has the failure of
    a rank where the starting program does not end the others by then.
    """
    follower = OutputFollower(tag, folder, plan.lost_peer_codes)
    adopt_orphans()
    before = frozenset(children(os.getpid()))
    with _catching() as caught:  # a signal that comes while it is being started asks it to stop too
        process = _start(plan)
        readers = [
            threading.Thread(target=_read, args=(source, sink, follower), daemon=True)
            for source, sink in ((process.stdout, sys.stdout), (process.stderr, sys.stderr))
        ]
        for reader in readers:
            reader.start()
        _wait(process, plan.stop_signal, caught, follower, grace)
        _sweep(process.pid, before)
    for reader in readers:
        reader.join(timeout=3)
    stopped = _stop_code(caught[0]) if caught else 0
    # Open MPI 5 ends with 0 when it has lost another host: only what the ranks say themselves is proof.
    code = process.returncode or (0 if len(follower.done) >= len(plan.processes) else NOT_ALL)
    codes = frozenset(failure.code for failure in follower.failures)
    return Ended(code, follower.first(bool(stopped)), stopped, follower.still, tuple(follower.others), codes)


def _start(plan: LaunchPlan) -> subprocess.Popen[str]:
    try:
        return subprocess.Popen(
            plan.argv,
            env=os.environ | plan.env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
            start_new_session=True,  # Ctrl-C on the terminal reaches it through us, once
        )
    except OSError as error:
        raise UserError(f"{plan.argv[0]} does not start: {error.strerror}", "check that it is installed") from None


def _stop_code(number: int) -> int:
    return STOP_CODES[0] if number == signal.SIGINT else STOP_CODES[1]


def _read(source: IO[str], sink: IO[str], follower: OutputFollower) -> None:
    for line in source:
        follower.line(line.rstrip("\n"), sink)


@contextlib.contextmanager
def _catching() -> Iterator[list[int]]:
    """The signals that ask to stop, in the order in which they came."""
    caught: list[int] = []

    def catch(number: int, frame: FrameType | None) -> None:
        caught.append(number)

    before = {number: signal.signal(number, catch) for number in STOPS}
    try:
        yield caught
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _wait(
    process: subprocess.Popen[str], stop_signal: int, caught: list[int], follower: OutputFollower, grace: float
) -> None:
    """Until the process has ended; first by itself, then as the signals say, then by force."""
    asked, deadline = False, float("inf")
    while process.poll() is None:
        now = time.monotonic()
        if caught and not asked:
            _signal(process.pid, stop_signal)
            asked, deadline = True, now + grace
        if follower.failures and deadline == float("inf"):
            deadline = now + grace
        if len(caught) > 1 or now > deadline:
            _end(process)
            return
        time.sleep(POLL)


def _end(process: subprocess.Popen[str]) -> None:
    """By force: SIGTERM lets the starting program end what it started elsewhere, SIGKILL what does not heed it."""
    _signal(process.pid, signal.SIGTERM)
    try:
        process.wait(timeout=5)
    except subprocess.TimeoutExpired:
        _signal_group(process.pid)
        process.wait()


def _signal(pid: int, number: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)


def _signal_group(group: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(group, signal.SIGKILL)


def _sweep(group: int, spared: frozenset[int]) -> None:
    """Kill what is left below the starting program, in whatever group or session: ssh in one of its own, say."""
    _signal_group(group)
    end = time.monotonic() + 5
    while (left := set(children(os.getpid())) - spared) and time.monotonic() < end:
        for pid in left:
            _signal(pid, signal.SIGKILL)
            with contextlib.suppress(ChildProcessError):
                os.waitpid(pid, 0)  # its own children are ours then
