"""A server of one's own for the time of a measurement: `bertkit serve` on a free loopback port."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from functools import partial
from typing import IO

from bertkit.engine.remote import wait_ready
from bertkit.errors import UserError
from bertkit.files.http import RemoteServer, server_at
from bertkit.files.processes import die_with_parent
from bertkit.launch.children import module_command

READY_S = 600.0  # large models on slow disks
GRACE_S = 20.0  # to end after SIGTERM, before SIGKILL
LOOPBACK = "127.0.0.1"


@contextlib.contextmanager
def own_server(run: str, words: Sequence[str], timeout: float) -> Iterator[RemoteServer]:
    """`bertkit serve RUN WORDS`, ready; it has ended when this is over.

    Raises UserError with its last line where it does not become ready.
    """
    port = free_port()
    command = module_command(sys.executable, "bertkit", "serve", run, "--host", LOOPBACK, "--port", str(port), *words)
    with tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as log:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
            preexec_fn=partial(die_with_parent, os.getpid()),
        )  # fmt: skip
        try:
            server = server_at(f"http://{LOOPBACK}:{port}", timeout)

            def alive() -> None:
                if process.poll() is not None:
                    raise UserError(f"bertkit serve {run} ended: {_last(log)}", "start it by itself to see more")

            wait_ready(server, READY_S, alive)
            yield server
            server.close()
        finally:
            _end(process)


def free_port() -> int:
    with socket.socket() as found:
        found.bind((LOOPBACK, 0))
        return int(found.getsockname()[1])


def _last(log: IO[str]) -> str:
    log.seek(0)
    lines = [line.strip() for line in log if line.strip()]
    return lines[-1].removeprefix("bertkit: ") if lines else "without a word"


def _end(process: subprocess.Popen[bytes]) -> None:
    for number, wait in ((signal.SIGTERM, GRACE_S), (signal.SIGKILL, None)):
        if process.poll() is None:
            process.send_signal(number)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(wait)
