"""Tasks on several processes of this host, each result as it comes; in this process where one is asked for."""

from __future__ import annotations

import logging
import multiprocessing
import os
import signal
import threading
import time
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass

from bertkit.distributed.workers import GO_ON, Done, Task
from bertkit.errors import UserError

MOST_LOSSES = 5  # of worker processes, one after another without a task that was finished in between
logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Processes:
    """`Workers` on this host, started for each run."""

    count: int

    def describe(self) -> str:
        return f"{self.count} process{'es' * (self.count > 1)} on this host"

    def wait_idle(self, name: str) -> None:
        """They end with the command that started them."""

    def run(self, name: str, task: Task, numbers: Sequence[int]) -> Iterator[tuple[int, Done]]:
        count = min(self.count, len(numbers))
        if count <= 1:
            yield from ((number, task(number)) for number in numbers)
            return
        left, losses = deque(numbers), 0
        while left:
            running: dict[Future[Done], int] = {}
            try:
                for number, done in _in_processes(task, left, running, count):
                    losses = 0
                    yield number, done
            except BrokenProcessPool:
                losses += 1
                if losses == MOST_LOSSES:
                    raise UserError("a worker process was ended from outside, as for want of memory", GO_ON) from None
                logger.warning("a worker process was ended from outside; its tasks are done again")
                left.extendleft(sorted(running.values(), reverse=True))


def _in_processes(
    task: Task, left: deque[int], running: dict[Future[Done], int], count: int
) -> Iterator[tuple[int, Done]]:
    """Do all tasks that are `left`, in new processes. Raises BrokenProcessPool where one of them died: those that were
    not finished are then in `left` and in `running`."""
    fresh = multiprocessing.get_context("spawn")  # a fork would copy the progress bar's thread half
    pool = ProcessPoolExecutor(count, mp_context=fresh, initializer=_start, initargs=(os.getpid(),))
    try:
        while left or running:
            while left and len(running) < 2 * count:
                running[pool.submit(task, left[0])] = left[0]
                left.popleft()
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                done = future.result()
                yield running.pop(future), done
    finally:
        pool.shutdown(cancel_futures=True)


def _start(parent: int) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent says what is to be done
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()


def _end_with(parent: int) -> None:
    """End this process when its parent is gone, which could not tell it."""
    while os.getppid() == parent:
        time.sleep(0.5)
    os._exit(1)
