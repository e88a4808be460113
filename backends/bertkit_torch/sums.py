"""Sums of host buffers by torch's kernels, for collectives that leave the addition to their caller."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from bertkit.plugin import AddSums as Add

ALONE = 1 << 14  # elements: below what torch splits over threads, so that one thread does it beside a backward pass
SHARED = 1 << 20  # elements: all threads, and the running sum still stays in the caches


def adder(chunk: int) -> Add:
    """An Add: in float32 in the order of the parts, bf16 rounded once."""

    def add(out: np.ndarray, parts: Sequence[np.ndarray]) -> None:
        target, tensors = as_tensor(out), [as_tensor(part) for part in parts]
        for start in range(0, len(out), chunk):
            pieces = [tensor[start : start + chunk] for tensor in tensors]
            place = target[start : start + chunk]
            if len(pieces) == 2 and target.dtype == torch.float32:
                torch.add(pieces[0], pieces[1], out=place)
                continue
            total = pieces[0].to(torch.float32, copy=True)
            for piece in pieces[1:]:
                total += piece
            place.copy_(total)

    return add


def as_tensor(array: np.ndarray) -> Tensor:
    """The same memory; uint16 holds bf16's bits."""
    tensor = torch.from_numpy(array)
    return tensor if array.dtype == np.float32 else tensor.view(torch.bfloat16)
