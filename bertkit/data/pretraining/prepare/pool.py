"""Numbered tasks on several processes, each result as it comes; one process alone where one is asked for."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from typing import Any, TypeVar

from bertkit.errors import Stopped, UserError

Work = TypeVar("Work")
Done = dict[str, Any]  # what JSON holds
GO_ON = "what is finished is kept: the same command goes on"


def run_all(
    work: Work, load: Callable[[], Work], task: Callable[[Work, int], Done], numbers: Sequence[int], workers: int
) -> Iterator[tuple[int, Done]]:
    """(number, `task(work, number)`) for all numbers, in the order in which they are done.

    `load` gives a worker process the work; little may be sent to it. Raises UserError where a worker ended by itself,
    Stopped where Ctrl-C ended all; what a task raises is passed on.
    """
    workers = min(workers, len(numbers))
    try:
        if workers <= 1:
            yield from ((number, task(work, number)) for number in numbers)
        else:
            yield from _in_processes(load, task, numbers, workers)
    except BrokenProcessPool:
        raise UserError("a worker process was ended from outside, as for want of memory", GO_ON) from None
    except KeyboardInterrupt:
        raise Stopped("stopped", GO_ON) from None


def _in_processes(
    load: Callable[[], Work], task: Callable[[Work, int], Done], numbers: Sequence[int], workers: int
) -> Iterator[tuple[int, Done]]:
    fresh = multiprocessing.get_context("spawn")  # a fork would copy the progress bar's thread half
    pool = ProcessPoolExecutor(workers, mp_context=fresh, initializer=_start, initargs=(os.getpid(), load))
    try:
        left = iter(numbers)
        running: dict[Future[Done], int] = {}
        while True:
            for number in left:
                running[pool.submit(_do, task, number)] = number
                if len(running) >= 2 * workers:
                    break
            if not running:
                return
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                yield running.pop(future), future.result()
    finally:
        pool.shutdown(cancel_futures=True)


_work: Any = None  # this worker process's, loaded once instead of with every task


def _start(parent: int, load: Callable[[], object]) -> None:
    global _work
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent says what is to be done
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()
    _work = load()


def _do(task: Callable[[Any, int], Done], number: int) -> Done:
    return task(_work, number)


def _end_with(parent: int) -> None:
    """End this process when its parent is gone, which could not tell it."""
    while os.getppid() == parent:
        time.sleep(0.5)
    os._exit(1)
