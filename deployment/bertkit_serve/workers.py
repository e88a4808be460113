"""Several processes that serve at one address, each bound to cores of its own; one that ends is started again.

Each has a socket of its own at the address (SO_REUSEPORT), so that the system deals the connections out evenly: of one
socket, the process that wakes first takes all that wait.

The first loads its models before the others begin, so that what cannot be loaded is reported once; none listens before
all have loaded theirs, since clients keep the connections that they have. The processes share a folder: the values of
the metrics, who is ready, which run is to be loaded anew.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType

from prometheus_client import multiprocess

from bertkit.plugin import (
    Binding,
    Machine,
    Request,
    ServeOptions,
    UserError,
    binding_places,
    format_cpu_list,
    module_command,
    rank_env,
    read_machine,
    thread_count,
)
from bertkit_serve import logs
from bertkit_serve.logs import logger
from bertkit_serve.metrics import FOLDER as METRICS
from bertkit_serve.server import address_of, bound, warn_of
from bertkit_serve.service import FOLDER, OPEN

POLL = 0.05  # seconds
SETTLED = 30.0  # seconds that a process must live for its end to be no fault of the start
MOST_ENDS = 5  # in a row, of a process that did not settle
GRACE = 10.0  # seconds over the requests' own time
STOPS = (signal.SIGTERM, signal.SIGINT)


@dataclass
class Worker:
    """One process, and those before it in its place."""

    number: int
    place: Binding
    threads: int
    started: float = 0.0
    ends: int = 0  # in a row, soon after the start


def serve_with_workers(options: ServeOptions) -> int:
    """Serve in `options.workers` processes until a signal; the exit code."""
    if not hasattr(socket, "SO_REUSEPORT"):
        raise UserError("processes cannot share an address on this system", "drop --workers")
    workers = _places(read_machine(), options.workers)
    with bound(options.host, options.port) as probe:  # which fails where another server has it, shared or not
        port = probe.getsockname()[1]
    listener = bound(options.host, port, shared=True)  # never listens: it keeps the port ours
    logs.prepare(options.quiet)
    warn_of(options)
    folder = Path(tempfile.mkdtemp(prefix="bertkit-serve-"))
    try:
        return Supervisor(dataclasses.replace(options, port=port), listener, folder, workers).run()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _places(machine: Machine, count: int) -> list[Worker]:
    """A share of the cores for each. Raises UserError for more processes than cores."""
    if count > len(machine.cores):
        raise UserError(
            f"--workers {count} for {len(machine.cores)} physical cores", "start fewer: each loads the models"
        )
    request = Request(command=("serve",), processes=count)
    places = binding_places(machine, request)
    return [
        Worker(number, place, thread_count(machine, place, count, request)[0]) for number, place in enumerate(places)
    ]


@dataclass
class Supervisor:
    """Starts the processes, starts those again that end, and ends them all at a signal."""

    options: ServeOptions
    listener: socket.socket
    folder: Path
    workers: list[Worker]
    caught: list[int] = field(default_factory=list)  # signals
    processes: dict[int, subprocess.Popen[bytes]] = field(default_factory=dict)  # by the number of the worker

    def run(self) -> int:
        with self._catching():
            for worker in self.workers:
                if self.caught:
                    break
                self._start(worker)
                code = self._wait_for("loaded", worker)
                if code is not None:
                    return self._end(code)
            (self.folder / OPEN).touch()
            for worker in self.workers:
                if (code := self._wait_for("ready", worker)) is not None:
                    return self._end(code)
            if not self.caught:
                names = ", ".join(f"{name}, {name}-text" for name in self.options.runs)
                address = address_of(self.options, self.listener)
                logger.info("serving %s at %s, %d processes", names, address, len(self.workers))
                logger.info("try: %s", (self.folder / "ready-0").read_text(encoding="utf-8"))
            while not self.caught:
                for worker in self.workers:
                    if not self._keep_alive(worker):
                        return self._end(1)
                time.sleep(POLL)
            return self._end(0)

    @contextlib.contextmanager
    def _catching(self) -> Iterator[None]:
        def catch(number: int, frame: FrameType | None) -> None:
            self.caught.append(number)

        before = {number: signal.signal(number, catch) for number in STOPS}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _start(self, worker: Worker) -> None:
        told = {
            "options": dataclasses.asdict(self.options) | {"runs": dict(self.options.runs)},
            "number": worker.number,
            "cpus": worker.place.cpus,
        }
        env = os.environ | rank_env(worker.threads) | {FOLDER: str(self.folder), METRICS: str(self.folder)}
        process = subprocess.Popen(
            module_command(sys.executable, "bertkit_serve.worker"),
            env=env,
            stdin=subprocess.PIPE,
            process_group=0,  # Ctrl-C reaches it once, through us
        )
        worker.started, self.processes[worker.number] = time.monotonic(), process
        with contextlib.suppress(BrokenPipeError):  # its end is seen later
            _tell(process, told)
        cpus = format_cpu_list(worker.place.cpus) or "all"
        logger.info("process %d: pid %d, CPUs %s, %d threads", worker.number, process.pid, cpus, worker.threads)

    def _wait_for(self, state: str, worker: Worker) -> int | None:
        """Until it has said so; the exit code where it ended instead."""
        while not self.caught and not (self.folder / f"{state}-{worker.number}").exists():
            code = self.processes[worker.number].poll()
            if code is not None:
                return code if code > 0 else 1
            time.sleep(POLL)
        return None

    def _keep_alive(self, worker: Worker) -> bool:
        """Start it again if it ended. False: it ends again and again."""
        process = self.processes[worker.number]
        code = process.poll()
        if code is None:
            return True
        _mark_dead(process.pid, self.folder)
        how = f"killed by {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
        worker.ends = worker.ends + 1 if time.monotonic() - worker.started < SETTLED else 1
        if worker.ends >= MOST_ENDS:
            logger.error(
                "process %d ended %d times soon after its start (%s); the server ends", worker.number, worker.ends, how
            )
            return False
        logger.warning("process %d (pid %d) ended: %s; it is started again", worker.number, process.pid, how)
        self._start(worker)
        return True

    def _end(self, code: int) -> int:
        """Let every process answer what it has, and end those that do not; the exit code."""
        living = [process for process in self.processes.values() if process.poll() is None]
        for process in living:
            process.send_signal(signal.SIGTERM)
        deadline = time.monotonic() + self.options.timeout + GRACE
        asked = len(self.caught)
        for process in living:
            while process.poll() is None:
                if time.monotonic() > deadline or len(self.caught) > max(1, asked):
                    logger.warning("pid %d did not end and is killed", process.pid)
                    process.kill()
                    process.wait()
                    code = code or 1
                time.sleep(POLL)
            ended_well = process.returncode in (0, -signal.SIGTERM)  # the latter before it began to serve
            code = code or (0 if ended_well else 1)
        return code


def _tell(process: subprocess.Popen[bytes], told: object) -> None:
    """A line on its standard input, which is left open: its end tells the process that this one is gone."""
    if process.stdin is not None:
        process.stdin.write(json.dumps(told).encode() + b"\n")
        process.stdin.flush()


def _mark_dead(pid: int, folder: Path) -> None:
    """Its gauges count no more."""
    multiprocess.mark_process_dead(pid, str(folder))  # type: ignore[no-untyped-call]
