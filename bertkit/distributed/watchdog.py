"""Ends this process when it waits for the others too long; neither an MPI call nor a torch one can be interrupted."""

from __future__ import annotations

import contextlib
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator

from bertkit.errors import PeersLost


class Watchdog:
    """`with watchdog.waiting("a sum"):` around whatever waits for other ranks. One thread, from the first wait on.

    It works because those calls let other Python threads run.
    """

    def __init__(self, rank: int, timeout: float, leave: Callable[[int], object] = os._exit) -> None:
        """`timeout`: seconds that one wait may take."""
        self.rank = rank
        self.timeout = timeout
        self.place = ""  # what the rank is at, as "at update 7"; the owner keeps it
        self._leave = leave
        self._waits: dict[int, tuple[float, str]] = {}  # by thread: since when, for what
        self._thread: threading.Thread | None = None
        self._end = threading.Event()

    @contextlib.contextmanager
    def waiting(self, what: str) -> Iterator[None]:
        """`what`: as "in a sum"."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._watch, name="bertkit-watchdog", daemon=True)
            self._thread.start()
        me = threading.get_ident()
        self._waits[me] = (time.monotonic(), what)
        try:
            yield
        finally:
            self._waits.pop(me, None)

    def _watch(self) -> None:
        while not self._end.wait(min(1.0, self.timeout / 4)):
            now = time.monotonic()
            for since, what in list(self._waits.values()):
                if now - since > self.timeout:
                    print(f"bertkit: {self._message(what)}", file=sys.stderr, flush=True)
                    self._leave(PeersLost.exit_code)
                    return

    def _message(self, what: str) -> str:
        place = " ".join(part for part in (self.place, what) if part)
        return (
            f"rank {self.rank} has waited {self.timeout:g} s for the other ranks {place}; one of them hangs or the "
            "network is cut; see what the other ranks said, or raise ranks.timeout"
        )

    def close(self) -> None:
        self._end.set()
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join()
