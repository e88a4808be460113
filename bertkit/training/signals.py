"""A signal to stop during training: finish the update, save, and leave with the code that the signal asks for.

SIGUSR1 and SIGALRM are what batch systems send ahead of the time limit, as `--signal=USR1@120` of sbatch's asks.
"""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from types import FrameType

# 128 + the signal's number, as shells report it; the batch systems' have SIGTERM's, so that one code says "saved, to be
# gone on with".
EXIT_CODES = {signal.SIGTERM: 143, signal.SIGINT: 130, signal.SIGUSR1: 143, signal.SIGALRM: 143}


class StopRequest:
    """Set by a signal, read between updates. A second Ctrl-C does not wait; another signal says nothing new.

    Slurm signals every process of a step, so a stop comes twice: from Slurm, and from the rank's wrapper.
    """

    def __init__(self) -> None:
        self.signal: signal.Signals | None = None

    def __bool__(self) -> bool:
        return self.signal is not None

    @property
    def exit_code(self) -> int:
        return EXIT_CODES[self.signal] if self.signal else 0

    def _ask(self, number: int, frame: FrameType | None) -> None:
        if self.signal is None:
            self.signal = signal.Signals(number)
        elif number == signal.SIGINT:
            raise KeyboardInterrupt


@contextlib.contextmanager
def stop_on_signals() -> Iterator[StopRequest]:
    """Catch these signals while training; the handlers that were there before come back."""
    request = StopRequest()
    if threading.current_thread() is not threading.main_thread():  # only the main thread may set handlers
        yield request
        return
    before = {number: signal.signal(number, request._ask) for number in EXIT_CODES}
    try:
        yield request
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
