"""The gradients of one rank in one flat host buffer, summed over the ranks beside backward in buckets, or at once.

The order is that of the parameters, last first, as backward makes them; after them stands the loss.
"""

from __future__ import annotations

import functools
import queue
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from bertkit.plugin import Exchange, Joined, World
from bertkit_torch.sums import ALONE, SHARED, adder, as_tensor

PIECES = 3  # bf16 numbers that hold a float32 exactly (8 bits each)


@dataclass(frozen=True)
class Bucket:
    """A stretch of the buffer that is summed by itself."""

    start: int  # in elements
    stop: int
    parts: frozenset[int]  # numbers of its parameters; the loss has the number after the last


def cut(sizes: Sequence[int], most: int) -> list[Bucket]:
    """Stretches of whole parts, each ended by the part that fills it up to `most` elements."""
    buckets, start, stop, first = [], 0, 0, 0
    for number, size in enumerate(sizes):
        stop += size
        if stop - start >= most or number == len(sizes) - 1:
            buckets.append(Bucket(start, stop, frozenset(range(first, number + 1))))
            start, first = stop, number + 1
    return buckets


class HostSum:
    """Gradients on the CPU."""

    def __init__(self, joined: Joined, world: World, parameters: Sequence[nn.Parameter], exchange: Exchange) -> None:
        self.world = world
        self.parameters = list(reversed(parameters))
        self.exact = exchange.gradients == "fp32"
        sizes = [parameter.numel() for parameter in self.parameters]
        sizes.append(1 if self.exact else PIECES * world.size)  # bf16: a place for each rank's loss, so none is rounded
        add = adder(ALONE if exchange.overlap else SHARED)
        self.flat = joined.flat(sum(sizes), exchange.gradients, add)
        self.views = torch.split(as_tensor(self.flat.array), sizes)
        most = exchange.bucket_bytes // self.flat.array.itemsize if exchange.overlap else sum(sizes)
        self.buckets = cut(sizes, most)
        self.worker = Worker() if exchange.overlap else None
        self._armed = False
        self._fresh()
        if exchange.overlap:
            for number, parameter in enumerate(self.parameters):
                parameter.register_post_accumulate_grad_hook(self._hook(number))  # type: ignore[no-untyped-call]

    def _fresh(self) -> None:
        self._there: set[int] = set()  # parts whose gradient is in the buffer
        self._started: list[Future[None]] = []  # of the buckets, in order

    def arm(self) -> None:
        """The backward pass that is about to begin is the update's last: its gradients are whole."""
        self._armed = self.worker is not None

    def _hook(self, number: int) -> Callable[[Tensor], None]:
        def arrived(parameter: Tensor) -> None:
            if self._armed and parameter.grad is not None:
                self._put(number, parameter.grad)

        return arrived

    def _put(self, number: int, gradient: Tensor) -> None:
        self.views[number].copy_(gradient.detach().reshape(-1))
        self._there.add(number)
        while self.worker and len(self._started) < len(self.buckets):
            bucket = self.buckets[len(self._started)]
            if not bucket.parts <= self._there:
                return
            self._started.append(self.worker.submit(functools.partial(self.flat.sum_, bucket.start, bucket.stop)))

    def finish(self, loss: Tensor) -> Tensor:
        """The gradients of all ranks summed, in place of this rank's; returns the sum of their losses."""
        self._armed = False
        for number, parameter in enumerate(self.parameters):
            if number not in self._there and parameter.grad is not None:
                self._put(number, parameter.grad)
        self._put(len(self.parameters), self._spread(loss))
        if self.worker is None:
            self.flat.sum_(0, self.buckets[-1].stop)
        for future in self._started:
            future.result()
        self._fresh()
        for parameter, view in zip(self.parameters, self.views[:-1], strict=True):
            summed = view.view_as(parameter)
            if self.exact:
                parameter.grad = summed  # the buffer itself: used up before it is filled again
            elif parameter.grad is not None:
                parameter.grad.copy_(summed)
        return self.views[-1].sum(dtype=torch.float32)

    def _spread(self, loss: Tensor) -> Tensor:
        if self.exact:
            return loss.reshape(1)
        pieces = torch.zeros(self.world.size, PIECES)
        rest = loss.reshape(())
        for number in range(PIECES):
            pieces[self.world.rank, number] = rest.to(torch.bfloat16).float()
            rest = rest - pieces[self.world.rank, number]
        return pieces

    def close(self) -> None:
        if self.worker is not None:
            self.worker.close()


class Worker:
    """One thread that does what it is given, in order. Python does not wait for it at its end, should it hang."""

    def __init__(self) -> None:
        self._tasks: queue.SimpleQueue[tuple[Callable[[], None], Future[None]] | None] = queue.SimpleQueue()
        threading.Thread(target=self._work, name="bertkit-exchange", daemon=True).start()

    def submit(self, task: Callable[[], None]) -> Future[None]:
        future: Future[None] = Future()
        self._tasks.put((task, future))
        return future

    def _work(self) -> None:
        while (given := self._tasks.get()) is not None:
            task, future = given
            try:
                future.set_result(task())
            except BaseException as error:  # for whoever asks the future
                future.set_exception(error)

    def close(self) -> None:
        self._tasks.put(None)
