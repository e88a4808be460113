"""One rank as a launcher starts it: bound to its share of the machine, its lines told apart, its end reported.

`python -P -m bertkit.launch.rank_process train …` finds its rank in the environment, binds itself to what
BERTKIT_PLACES says for its local rank, and runs `bertkit train …`, or a script of the user's. Every line comes out as
`[rank 3 on host] …`, and a failure as `[rank 3 on host]! 137 killed by SIGKILL`, a good end as
`[rank 3 on host]= done`, whatever started it: `supervisor.py` reads them, people can too.
"""

from __future__ import annotations

import contextlib
import os
import platform
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from types import FrameType
from typing import BinaryIO

from bertkit.distributed.world import World, from_env
from bertkit.errors import PeersLost, UserError
from bertkit.files.processes import die_with_parent, state
from bertkit.launch.affinity import PLACES, parse_places
from bertkit.launch.children import module_command
from bertkit.launch.interface import Binding
from bertkit.launch.script import environment, is_script

FROM_BATCH = (signal.SIGUSR1, signal.SIGALRM)  # what a batch system sends ahead of the time limit
STOPS = (signal.SIGTERM, signal.SIGINT, *FROM_BATCH)  # each means: save and end
DAEMONS = ("orted", "prted", "hydra_pmi_proxy")  # what an mpirun has on every other host
DAEMON_SECONDS = 5.0
LAST_WORDS_SECONDS = 1.0  # that a failed rank waits, since an mpirun kills the others when it sees the first one gone
STOPPED_SECONDS = 5.0  # that a process stands still before it is said
PEERS_LOST = PeersLost.exit_code
ENDS_OF_ALL = (0, 2, 130, 143)  # exit codes that every rank has alike: done, wrongly used, asked to stop


def main(words: Sequence[str]) -> int:
    """Run `bertkit` with these words, or a script, as this rank; returns its exit code, 128 + n for signal n."""
    die_with_parent()
    world = from_env()
    label = f"[rank {world.rank} on {platform.node()}]"
    place, warning = my_place(world, os.environ)
    prefix = bind(place)
    if warning:
        _write(sys.stderr.buffer, f"{label} warning: {warning}\n".encode())
    program, added = child_program(words)
    command = [*prefix, *program]
    env = {name: value for name, value in os.environ.items() if name != PLACES}
    child = subprocess.Popen(
        command,
        env=env | {"PYTHONUNBUFFERED": "1"} | added,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        close_fds=False,  # Hydra and others hand each rank a connection, by the number of a file descriptor (PMI_FD)
        preexec_fn=partial(_prepare_child, os.getpid()),
        process_group=0,  # so that a signal to the launcher's group reaches it once, through us
    )
    with _passing_on(child, label) as still:
        code = _watch(child, label)
    _report(code, label, "stopped by a signal (SIGSTOP), so it was killed" if still else "")
    code = code if code >= 0 else 128 - code
    if code == PEERS_LOST:
        _end_daemon()
    elif code not in ENDS_OF_ALL:
        time.sleep(LAST_WORDS_SECONDS)
    return code


def child_program(words: Sequence[str]) -> tuple[tuple[str, ...], dict[str, str]]:
    """(what the rank runs, variables that it gets)."""
    if is_script(words):
        return module_command(sys.executable, "bertkit.launch.script", *words), environment(words)
    return module_command(sys.executable, "bertkit", *words), {}


def my_place(world: World, env: Mapping[str, str]) -> tuple[Binding, str]:
    """What this rank is bound to, and what is odd about it; an unbound place where the launcher binds by itself."""
    text = env.get(PLACES, "")
    if not text:
        return Binding(), ""
    try:
        places = parse_places(text)
    except ValueError as error:
        return Binding(), f"{PLACES} is not understood and was ignored: {error}"
    if world.local_rank >= len(places):
        return Binding(), f"{PLACES} has no place for local rank {world.local_rank}; it is not bound"
    return places[world.local_rank], ""


def bind(place: Binding) -> list[str]:
    """Bind this process, and so its children, to the place's CPUs; returns what binds the memory, before a command.

    Neither is worth failing for: without the right (in a container, say) the rank runs unbound.
    """
    if place.cpus and hasattr(os, "sched_setaffinity"):
        with contextlib.suppress(OSError):  # CPUs outside this host's cpuset
            os.sched_setaffinity(0, place.cpus)
    if not place.nodes or not shutil.which("numactl"):
        return []
    prefix = ["numactl", "--membind=" + ",".join(map(str, place.nodes))]
    allowed = subprocess.run([*prefix, "true"], capture_output=True, check=False).returncode == 0
    return prefix if allowed else []


def _prepare_child(parent: int) -> None:
    """Slurm signals every process of a step: that must not kill the child, which gets SIGTERM from us instead."""
    for number in FROM_BATCH:
        signal.signal(number, signal.SIG_IGN)
    die_with_parent(parent)


@contextlib.contextmanager
def _passing_on(child: subprocess.Popen[bytes], label: str) -> Iterator[list[int]]:
    """Pass the child's lines on with the label before them, and our signals on to the child.

    Gives a list that holds the child's number if it stood still, stopped by a signal, when it was to end.
    """
    still: list[int] = []

    def stop(number: int, frame: FrameType | None) -> None:
        with contextlib.suppress(ProcessLookupError):
            if state(child.pid) == "T":  # it heeds nothing else
                still.append(child.pid)
                child.kill()
            child.send_signal(signal.SIGTERM)

    for number in STOPS:
        signal.signal(number, stop)
    pairs = ((child.stdout, sys.stdout.buffer), (child.stderr, sys.stderr.buffer))
    pumps = [threading.Thread(target=_pump, args=(source, sink, label)) for source, sink in pairs if source]
    for pump in pumps:
        pump.start()
    yield still
    for pump in pumps:
        pump.join(timeout=5)  # a grandchild may still hold the pipe


def _pump(source: BinaryIO, sink: BinaryIO, label: str) -> None:
    for line in source:
        _write(sink, f"{label} ".encode() + line.rstrip(b"\r\n") + b"\n")


def _write(sink: BinaryIO, line: bytes) -> None:
    with contextlib.suppress(OSError, ValueError):  # nobody reads any more: the parent is going
        os.write(sink.fileno(), line)  # in one piece: what started us may mix the pieces of different ranks


def _watch(child: subprocess.Popen[bytes], label: str) -> int:
    """Wait for the child; say so if it stands still, since the others can only say that they wait."""
    since: float | None = None
    while True:
        try:
            return child.wait(timeout=1)
        except subprocess.TimeoutExpired:
            still = state(child.pid) == "T"
        if not still:
            since = None
        elif since is None:
            since = time.monotonic()
        elif time.monotonic() - since >= STOPPED_SECONDS:
            since = float("inf")  # said once
            _write(sys.stderr.buffer, f"{label}? is stopped by a signal (SIGSTOP); the other ranks wait\n".encode())


def _report(code: int, label: str, reason: str) -> None:
    if code == 0:
        said = "= done"
    elif code < 0:
        said = f"! {128 - code} {reason or f'killed by {signal.Signals(-code).name}'}"
    else:
        said = f"! {code} exit code {code}"
    _write(sys.stderr.buffer, f"{label}{said}\n".encode())


def _end_daemon() -> None:
    """End what started this rank on a host that has lost the others, if it does not end us by then.

    With bytes on the way over a cut link such a daemon waits for as long as TCP repeats them: a quarter of an hour.
    """
    time.sleep(DAEMON_SECONDS)
    parent = os.getppid()
    with contextlib.suppress(OSError):
        if Path(f"/proc/{parent}/comm").read_text(encoding="utf-8").strip() in DAEMONS:
            os.kill(parent, signal.SIGTERM)
            time.sleep(2)  # by then we are gone with it
            os.kill(parent, signal.SIGKILL)


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except UserError as error:
        print(f"bertkit: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
