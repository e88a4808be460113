"""The masked words' loss. Their logits are the largest array of an update, so the gradient takes their place.

A few rows at a time go through softmax while they are in the cache, so that beside the logits themselves no array of
their size is made; the plain way makes four, in float32. Measured in docs/performance.md.

Legend: M masked positions, V vocabulary.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

ROWS = 32  # of logits at a time: 4 MB of float32 for V = 30,522


class _InPlace(torch.autograd.Function):
    """logits (M or more, V), labels (M,) int64 -> the sum of -log softmax at the labels, times `scale`.

    Spoils the logits.
    """

    @staticmethod
    def forward(ctx: Any, logits: Tensor, labels: Tensor, scale: float) -> Tensor:
        total = torch.zeros((), dtype=torch.float64)
        gradient = logits.detach()
        for first in range(0, len(labels), ROWS):
            rows, at = gradient[first : first + ROWS], labels[first : first + ROWS, None]
            shares = torch.softmax(rows, 1, dtype=torch.float32)
            right = shares.gather(1, at)
            if right.min() < torch.finfo(torch.float32).tiny:  # their logarithm must not come of nothing
                total -= torch.log_softmax(rows, 1, dtype=torch.float32).gather(1, at).sum()
            else:
                total -= right.log_().sum()
            shares.scatter_add_(1, at, shares.new_full(at.shape, -1.0))
            rows.copy_(shares.mul_(scale))
        gradient[len(labels) :] = 0
        ctx.gradient = gradient
        return (total * scale).float()

    @staticmethod
    def backward(ctx: Any, above: Tensor) -> tuple[Tensor, None, None]:
        gradient: Tensor = ctx.gradient
        return gradient if above == 1 else gradient * above, None, None


def in_place(logits: Tensor, labels: Tensor, count: int) -> Tensor:
    """The mean over `count` labels, these among them. It is differentiated once; `logits` are not to be read again."""
    found: Tensor = _InPlace.apply(logits, labels, 1 / count)  # type: ignore[no-untyped-call]
    return found
