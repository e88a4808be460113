"""Requests under a load: in a closed loop so many are in flight, in an open loop they arrive at their own moments.

In an open loop a request's latency counts from the moment at which it was due, whether or not the client or the server
was late: a server that stalls delays all that were due meanwhile, and all of that is seen.
Source: Tene, "How NOT to measure latency" (coordinated omission).
"""

from __future__ import annotations

import itertools
import queue
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

MOST_WAITING = 512  # requests in flight in an open loop; those beyond wait, and their waiting counts


@dataclass(frozen=True)
class Sent:
    """What became of one request, as the client saw it."""

    error: str = ""  # "": answered
    send_seconds: float = 0.0
    receive_seconds: float = 0.0


@dataclass(frozen=True)
class Timed:
    """One request of a load; seconds since the load began."""

    number: int
    due: float  # when it was to be sent; in a closed loop: when it was
    start: float
    done: float
    sent: Sent

    @property
    def latency(self) -> float:
        return self.done - self.due


Send = Callable[[int], Sent]  # by the request's number, from 0; raises nothing


def closed_loop(send: Send, concurrency: int, seconds: float, tell: Callable[[], object]) -> list[Timed]:
    """`concurrency` requests in flight until `seconds` are over; what is then in flight is waited for.

    `tell`: called after each. Returned in the order in which they were answered.
    """
    numbers, made = itertools.count(), list[Timed]()
    begin = time.perf_counter()

    def turn() -> None:
        while (start := time.perf_counter() - begin) < seconds:
            number = next(numbers)
            sent = send(number)
            made.append(Timed(number, start, start, time.perf_counter() - begin, sent))
            tell()

    threads = [threading.Thread(target=turn, daemon=True) for _ in range(concurrency)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sorted(made, key=lambda one: one.done)


def arrivals(rate: float, seconds: float, seed: int) -> np.ndarray:
    """(N,) moments at which requests are due, a Poisson process; the same for the same arguments."""
    stream = np.random.Generator(np.random.PCG64(np.random.SeedSequence([seed, 2])))
    found = np.cumsum(stream.exponential(1 / rate, int(rate * seconds + 10 * (rate * seconds) ** 0.5 + 10)))
    kept: np.ndarray = found[found < seconds]
    return kept


def open_loop(send: Send, due: Sequence[float] | np.ndarray, tell: Callable[[], object]) -> list[Timed]:
    """A request at each of these moments, whatever is in flight; returned when all are answered."""
    made, waiting = list[Timed](), queue.SimpleQueue[tuple[int, float] | None]()
    most, stopped = min(MOST_WAITING, len(due)), threading.Event()

    def work() -> None:
        while (given := waiting.get()) is not None and not stopped.is_set():
            number, moment = given
            start = time.perf_counter() - begin
            sent = send(number)
            made.append(Timed(number, moment, start, time.perf_counter() - begin, sent))
            tell()

    with ThreadPoolExecutor(max(1, most), "request") as pool:
        idle = [pool.submit(work) for _ in range(most)]
        begin = time.perf_counter()  # the threads are there: no request waits for one to be made
        try:
            for number, moment in enumerate(due):
                ahead = begin + moment - time.perf_counter()
                if ahead > 0:
                    time.sleep(ahead)
                waiting.put((number, float(moment)))
        except BaseException:  # Ctrl-C: what waits is not sent any more
            stopped.set()
            raise
        finally:
            for _ in idle:
                waiting.put(None)
    return sorted(made, key=lambda one: one.done)


@dataclass(frozen=True)
class Measurement:
    """What a load gave between the end of the warm-up and its own end."""

    seconds: float
    counted: tuple[Timed, ...]  # answered ones
    failed: tuple[Timed, ...]
    within: tuple[Timed, ...]  # of all that were sent: those answered in these seconds, which the rates are of

    @property
    def errors(self) -> dict[str, int]:
        """What went wrong -> how often."""
        found: dict[str, int] = {}
        for one in self.failed:
            found[one.sent.error] = found.get(one.sent.error, 0) + 1
        return found


def measured(made: Sequence[Timed], warmup: float, seconds: float, is_open: bool) -> Measurement:
    """What counts: in a closed loop the requests that ended after the warm-up and in time, in an open loop all that
    were due then, however late they ended."""

    def counts(one: Timed) -> bool:
        return warmup <= (one.due if is_open else one.done) < seconds

    inside = [one for one in made if counts(one)]
    return Measurement(
        seconds=seconds - warmup,
        counted=tuple(one for one in inside if not one.sent.error),
        failed=tuple(one for one in inside if one.sent.error),
        within=tuple(one for one in made if not one.sent.error and warmup <= one.done < seconds),
    )
