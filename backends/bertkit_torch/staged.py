"""A batch of fixed sizes on its way to the device, and the program that is run for all batches of its sizes."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from bertkit.plugin import Batch, Filled, Static
from bertkit_torch.device import Device


class Staged(Filled):
    """Made ahead, with its arrays where the device fetches them."""

    def __init__(self, batch: Batch, made: Static, host: Host) -> None:
        super().__init__(batch, made)
        self.host = host


@dataclass(frozen=True)
class Host:
    """A static batch's arrays one after another, so that one copy of each kind brings them to the device."""

    whole: Tensor  # int64
    real: Tensor  # float32

    @staticmethod
    def of(made: Static, pin: Callable[[Tensor], Tensor]) -> Host:
        whole = np.concatenate([array.reshape(-1) for array in made.whole.values()])
        real = np.concatenate([*(array.reshape(-1) for array in made.real.values()), np.empty(0, np.float32)])
        return Host(pin(torch.from_numpy(whole)), pin(torch.from_numpy(real)))


def views(made: Static, whole: Tensor, real: Tensor) -> dict[str, Tensor]:
    """The arrays of `made` by name, of what lies one after another in `whole` and `real`."""
    found: dict[str, Tensor] = {}
    for flat, arrays in ((whole, made.whole), (real, made.real)):
        parts = torch.split(flat, [array.size for array in arrays.values()])
        found |= {name: part.view(arrays[name].shape) for name, part in zip(arrays, parts, strict=True)}
    return found


class Program:
    """The passes of one size: the arrays are brought to where it reads them; what follows is run, or replayed."""

    def __init__(
        self, device: Device, where: torch.device, compute: Callable[[Tensor, Tensor], None], first: Staged
    ) -> None:
        self.device = device
        self.whole, self.real = (torch.zeros_like(part, device=where) for part in (first.host.whole, first.host.real))
        self._bring(first)
        self.run = device.capture(functools.partial(compute, self.whole, self.real))

    def _bring(self, staged: Staged) -> None:
        self.whole.copy_(staged.host.whole, non_blocking=True)
        self.real.copy_(staged.host.real, non_blocking=True)

    def __call__(self, staged: Staged, seed: int) -> None:
        self._bring(staged)
        self.device.seed(seed)
        self.run()
