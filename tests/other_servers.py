"""Other projects' servers, started for a test and ended with it."""

from __future__ import annotations

import contextlib
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen


@contextlib.contextmanager
def running(
    words: Sequence[str | Path], folder: Path, ready: str, env: Mapping[str, str] | None = None
) -> Iterator[None]:
    """The command in the folder, which gets its log, from when the address `ready` says so to the end of the block."""
    with (folder / "log").open("w") as log:
        server = subprocess.Popen(words, stdout=log, stderr=log, env=env, cwd=folder)
        try:
            _wait(server, ready, folder / "log")
            yield
        finally:
            server.terminate()
            try:
                server.wait(20)
            except subprocess.TimeoutExpired:
                server.kill()
                server.wait()


def _wait(server: subprocess.Popen[bytes], ready: str, log: Path) -> None:
    until = time.monotonic() + 120
    while time.monotonic() < until:
        assert server.poll() is None, log.read_text()
        with contextlib.suppress(URLError, OSError), urlopen(ready) as answer:
            if answer.status == 200:
                return
        time.sleep(0.2)
    raise AssertionError(f"the server is not ready: {log.read_text()}")
