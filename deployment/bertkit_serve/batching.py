"""A model's queue, and the thread that computes what waits in it.

The thread takes what has come, up to a number of real tokens, and computes it as one batch without padding; meanwhile
further requests gather. Whoever waits longest is always taken; who does not fit beside those before waits, and shorter
ones behind take the room, where it is worth it. An idle model computes at once: there is no delay to wait for more.

Legend: N examples of a request.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import math
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from bertkit.plugin import Arrays, Features, UserError
from bertkit_serve.refusals import TOO_LARGE, TOO_MANY, Refused

Compute = Callable[[Sequence[Features]], "list[Arrays | UserError]"]
Outcome = Arrays | Exception
LONGEST_RETRY = 60  # seconds
WORTH = 1 / 8  # of a batch's tokens: room that is filled by those behind one that does not fit
KEPT = 0.9  # of the rate known so far, at each batch


@dataclass(frozen=True)
class BatchLimits:
    """What is computed together, and what may wait."""

    tokens: int = 4096  # 0: to be measured before the first request
    sequences: int = 64
    waiting: int = 1024  # sequences
    of_request: int = 65_536  # tokens


@dataclass(frozen=True)
class Computed:
    """One batch, for the metrics."""

    tokens: int
    sequences: int
    seconds: float


class Replaced(Exception):
    """The model takes no more requests: another one has its name by now."""


class Ticket:
    """A request in the queue, in one part or several."""

    def __init__(self, parts: Sequence[Features]) -> None:
        self.parts = parts
        self.loop = asyncio.get_running_loop()
        self.done: asyncio.Future[None] = self.loop.create_future()
        self.outcomes: dict[int, Outcome] = {}
        self.arrived = time.perf_counter()
        self.started = 0.0  # when the first part was taken
        self.computing = 0.0  # seconds of the batches that its parts were in

    @property
    def waited(self) -> float:
        """Seconds before the first part was taken."""
        return (self.started or time.perf_counter()) - self.arrived

    def outputs(self) -> Arrays:
        """Of all parts, in their order. Raises what went wrong with one."""
        found = []
        for number in range(len(self.parts)):
            outcome = self.outcomes[number]
            if isinstance(outcome, Exception):
                raise outcome
            found.append(outcome)
        return (
            found[0] if len(found) == 1 else {name: np.concatenate([one[name] for one in found]) for name in found[0]}
        )

    def finish(self) -> None:
        """Called by the computing thread."""
        with contextlib.suppress(RuntimeError):  # the loop is closed
            self.loop.call_soon_threadsafe(self._tell)

    def _tell(self) -> None:
        if not self.done.done():
            self.done.set_result(None)


class Batcher:
    """The queue. Every method but `run` is for the threads of those who ask."""

    def __init__(self, limits: BatchLimits, computed: Callable[[Computed], None] = lambda batch: None) -> None:
        self.limits, self.computed = limits, computed
        self._queue: deque[tuple[Ticket, int]] = deque()
        self._changed = threading.Condition()
        self._closing = False
        self.sequences = self.tokens = 0  # that wait
        self.rate = 0.0  # tokens a second, as lately

    # ---- for those who ask ----

    def submit(self, features: Features) -> Ticket:
        """Put a request into the queue. Raises Refused where it is too large, or the queue is full; Replaced."""
        tokens, sequences = len(features.input_ids), len(features.lengths)
        if tokens > self.limits.of_request or sequences > self.limits.waiting:
            most = f"{self.limits.of_request:,} tokens in {self.limits.waiting:,} sequences"
            raise Refused(
                TOO_LARGE, f"the request has {tokens:,} tokens in {sequences:,} sequences, at most {most}", "divide it"
            )
        ticket = Ticket(list(divide(features, self.limits)))
        with self._changed:
            if self._closing:
                raise Replaced
            if self.sequences + sequences > self.limits.waiting:
                raise Refused(TOO_MANY, "the queue is full", "try again later", {"Retry-After": str(self._wait())})
            self._queue.extend((ticket, number) for number in range(len(ticket.parts)))
            self.sequences += sequences
            self.tokens += tokens
            self._changed.notify()
        return ticket

    def cancel(self, ticket: Ticket) -> None:
        """Take what waits of a request out of the queue: nobody wants it any more."""
        with self._changed:
            gone = [number for other, number in self._queue if other is ticket]
            self._queue = deque(entry for entry in self._queue if entry[0] is not ticket)
            for number in gone:
                self._count(ticket.parts[number], -1)

    def close(self) -> None:
        """Take no more; `run` ends when what waits is done."""
        with self._changed:
            self._closing = True
            self._changed.notify()

    def _wait(self) -> int:
        """Seconds until the queue will be computed, as far as is known."""
        return min(LONGEST_RETRY, max(1, math.ceil(self.tokens / self.rate))) if self.rate else 1

    def _count(self, part: Features, sign: int) -> None:
        self.sequences += sign * len(part.lengths)
        self.tokens += sign * len(part.input_ids)

    # ---- for the computing thread ----

    def run(self, compute: Compute) -> None:
        """Compute until `close`."""
        while batch := self._take():
            began = time.perf_counter()
            features = [ticket.parts[number] for ticket, number in batch]
            for ticket, _ in batch:
                ticket.started = ticket.started or began
            outcomes = _outcomes(compute, features)
            seconds = time.perf_counter() - began
            tokens = sum(len(part.input_ids) for part in features)
            self.rate = KEPT * self.rate + (1 - KEPT) * tokens / seconds if self.rate else tokens / seconds
            self.computed(Computed(tokens, sum(len(part.lengths) for part in features), seconds))
            for (ticket, number), outcome in zip(batch, outcomes, strict=True):
                ticket.computing += seconds
                ticket.outcomes[number] = outcome
                if len(ticket.outcomes) == len(ticket.parts):
                    ticket.finish()

    def _take(self) -> list[tuple[Ticket, int]]:
        """The parts that are computed next: the one that came first, and those behind it that fit, past a longer one
        where much room is left; none at the end."""
        with self._changed:
            while not self._queue and not self._closing:
                self._changed.wait()
            taken, left = list[tuple[Ticket, int]](), deque[tuple[Ticket, int]]()
            tokens, sequences = self.limits.tokens, self.limits.sequences  # that there is room for
            full = False
            for ticket, number in self._queue:
                part = ticket.parts[number]
                fits = len(part.input_ids) <= tokens and len(part.lengths) <= sequences
                if full or (taken and not fits):
                    full = full or tokens <= WORTH * self.limits.tokens or not sequences
                    left.append((ticket, number))
                    continue
                taken.append((ticket, number))
                tokens, sequences = tokens - len(part.input_ids), sequences - len(part.lengths)
                self._count(part, -1)
            self._queue = left
            return taken


def _outcomes(compute: Compute, features: Sequence[Features]) -> list[Outcome]:
    """Each part's outputs or error. Where a batch fails, each part is computed alone: one must not spoil the others."""
    try:
        return list(compute(features))
    except Exception as error:
        if len(features) == 1:
            return [error]
    return [_outcomes(compute, [part])[0] for part in features]


def divide(features: Features, limits: BatchLimits) -> Iterator[Features]:
    """A request's N examples in parts that are small enough for a batch, in their order; a long example is a part."""
    each, starts = features.each, features.cu_seqlens
    first = 0
    for last in range(1, len(features) + 1):
        if last < len(features):
            tokens = starts[(last + 1) * each] - starts[first * each]
            if tokens <= limits.tokens and (last + 1 - first) * each <= limits.sequences:
                continue
        begin, end = starts[first * each], starts[last * each]
        yield dataclasses.replace(
            features,
            input_ids=features.input_ids[begin:end],
            token_type_ids=features.token_type_ids[begin:end],
            cu_seqlens=starts[first * each : last * each + 1] - begin,
            notes={},
        )
        first = last
