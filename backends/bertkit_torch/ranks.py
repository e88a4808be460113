"""What the ranks of one job say to each other: gradients and loss summed once an update, predictions gathered."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, Protocol

import numpy as np
import torch
import torch.distributed
from torch import Tensor

from bertkit.plugin import GRACE, Exchange, Joined, UserError, World
from bertkit.plugin import join_ranks as join
from bertkit_torch.buckets import HostSum
from bertkit_torch.gloo import meet
from bertkit_torch.gradients import Gradients

dist: Any = torch.distributed  # whose stubs leave the stores out


class Sum(Protocol):
    """Gradients of all ranks, however they are summed."""

    def arm(self) -> None: ...

    def finish(self, loss: Tensor) -> Tensor: ...

    def close(self) -> None: ...


class Ranks:
    """The ranks of `world`; for one process alone every method does nothing."""

    def __init__(
        self,
        world: World,
        collectives: str,
        place: torch.device,
        gradients: Gradients,
        exchange: Exchange,
    ) -> None:
        """`collectives`: torch.distributed's name of the device's library; the host's are chosen by `exchange`."""
        self.world, self.exchange = world, exchange
        self._collectives, self._place, self._gradients = collectives, place, gradients
        self._joined = join(world, exchange.collectives, exchange.timeout)
        self._sum: Sum | None = None

    def begin(self, step: int) -> None:
        """An update begins. A collective the first time: evaluation alone needs no buffers."""
        if self.world.size == 1:
            return
        self._joined.at(f"at update {step}")
        if self._sum is None and self._place.type == "cpu":
            self._sum = HostSum(self._joined, self.world, self._gradients.parameters, self.exchange)
        elif self._sum is None:
            self._sum = DeviceSum(self._joined, self._collectives, self._gradients, self.exchange)

    def arm(self) -> None:
        """The update's last backward pass begins: sums of what it finishes may start beside it."""
        if self._sum is not None:
            self._sum.arm()

    def sum_(self, loss: Tensor) -> Tensor:
        """Every parameter's gradient becomes its sum over the ranks; returns the loss's. A collective."""
        return loss if self._sum is None else self._sum.finish(loss)

    def share(self, parts: Sequence[Sequence[Tensor]]) -> None:
        """Each rank takes what the others have, on an accelerator: `parts[r]` (n,) float32 each are rank r's.

        A collective within an update.
        """
        if not isinstance(self._sum, DeviceSum):
            raise AssertionError("an accelerator's ranks share within an update")
        self._sum.share(parts)

    def gather(self, rows: np.ndarray) -> np.ndarray:
        """(N_r, …) of each rank -> all of them, in rank order, on every rank."""
        return self._joined.gather(rows)

    @contextmanager
    def waiting(self, what: str) -> Iterator[None]:
        """Around a wait for this rank's device, which may itself wait for other ranks'; `what`: as "in a sum"."""
        if self.world.size == 1 or self._place.type == "cpu":
            yield
            return
        with self._joined.together(what), device_errors():
            yield

    def from_each(self, text: str) -> list[str]:
        """What each rank gives, in rank order. A collective."""
        given = np.array(list(text.encode()), np.uint8)
        lengths = self.gather(np.array([len(given)]))
        parts = np.split(self.gather(given), np.cumsum(lengths)[:-1])
        return [bytes(part).decode() for part in parts]

    def from_first(self, text: str) -> str:
        """What the first rank gives. A collective."""
        return self.from_each(text if self.world.is_first else "")[0]

    def describe(self) -> dict[str, str]:
        if self.world.size == 1:
            return {}
        name, reason, sent = self._joined.name, self._joined.reason, self.exchange.gradients
        if self._place.type != "cpu":
            return {"collectives": f"{self._collectives} for {sent} gradients, {name} for the rest ({reason})"}
        way = f"in buckets of {self.exchange.bucket_bytes / 1e6:g} MB beside backward" if self.exchange.overlap else ""
        return {"collectives": " ".join(part for part in (f"{name} ({reason}), {sent} gradients", way) if part)}

    def close(self) -> None:
        if self._sum is not None:
            self._sum.close()
        self._joined.close()


class DeviceSum:
    """Gradients on an accelerator, by torch.distributed with the vendor's library.

    torch has one group a process: engines of one process follow one another.
    """

    def __init__(self, joined: Joined, collectives: str, gradients: Gradients, exchange: Exchange) -> None:
        self.joined, self.gradients = joined, gradients
        self.bf16 = exchange.gradients == "bf16"
        self.most = exchange.bucket_bytes // (2 if self.bf16 else 4)
        self.own = not dist.is_initialized()
        if not self.own:
            return
        world = joined.world
        try:
            meeting = meet(world, exchange.timeout)
            store = dist.PrefixStore(f"device {next(meeting.joins)}", meeting.store)
            # The watchdog of `joined` is first, and says more; the library's own would abort the process.
            patience = timedelta(seconds=exchange.timeout + 2 * GRACE)
            dist.init_process_group(collectives, store=store, rank=world.rank, world_size=world.size, timeout=patience)
        except (RuntimeError, ValueError) as error:
            raise UserError(
                f"the {world.size} processes did not find each other through {collectives}: {error}",
                "check MASTER_ADDR and MASTER_PORT, and the device's driver",
            ) from None

    def arm(self) -> None:
        pass

    def finish(self, loss: Tensor) -> Tensor:
        with self.joined.together("in a sum on the device"), device_errors():
            return self._finish(loss)

    def _finish(self, loss: Tensor) -> Tensor:
        flat, parts = self._flat()
        if self.bf16:
            for stretch in torch.split(flat, self.most):  # each as soon as it is rounded
                sent = stretch.to(torch.bfloat16)
                dist.all_reduce(sent)
                stretch.copy_(sent)
        else:
            dist.all_reduce(flat)
        for gradient, part in parts:
            gradient.copy_(part.view_as(gradient))
        summed = loss.detach().float().reshape(1)
        dist.all_reduce(summed)  # by itself: bf16 would round it
        return summed[0]

    def share(self, parts: Sequence[Sequence[Tensor]]) -> None:
        """`Ranks.share`; all ranks send as much as the one that has most."""
        rank, size = self.joined.world.rank, self.joined.world.size
        width = max(sum(map(len, own)) for own in parts)
        with self.joined.together("for the others' weights on the device"), device_errors():
            sent = torch.zeros(width, device=self.gradients.parameters[0].device)
            if parts[rank]:
                sent[: sum(map(len, parts[rank]))] = torch.cat(list(parts[rank]))
            found = sent.new_empty(size * width)
            dist.all_gather_into_tensor(found, sent)
            for other, theirs in enumerate(parts):
                start = other * width
                for part in theirs if other != rank else ():
                    part.copy_(found[start : start + len(part)])
                    start += len(part)

    def _flat(self) -> tuple[Tensor, list[tuple[Tensor, Tensor]]]:
        """All gradients in one buffer, and for each that does not live there its place in it."""
        if self.gradients.flat is not None:
            return self.gradients.flat, []
        loose = self.gradients.complete()
        flat = torch.cat([gradient.detach().reshape(-1) for gradient in loose])
        return flat, list(zip(loose, torch.split(flat, [one.numel() for one in loose]), strict=True))

    def close(self) -> None:
        """Leave the group, which waits for the others; not where an error is under way: the process is to end then."""
        if self.own and dist.is_initialized() and sys.exc_info()[0] is None:
            with self.joined.together("at the end of the device's sums"), device_errors():
                dist.destroy_process_group()


@contextmanager
def device_errors() -> Iterator[None]:
    """A vendor's library says DistError, of whatever kind, where the other ranks are lost."""
    try:
        yield
    except dist.DistError as error:
        raise ConnectionError(str(error).splitlines()[0] if str(error) else "the device's library failed") from None
