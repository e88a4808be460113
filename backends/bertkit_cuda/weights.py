"""The decoder over the vocabulary in a size that tensor cores are fast at.

Legend: M masked positions, V pieces of the vocabulary.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from bertkit_torch.weights import ComputeWeights

GRAIN = 64  # rows of the decoder are filled up to a multiple of it: 30,522 are no multiple of 8


class TrainingWeights(ComputeWeights):
    """Of training: its logits have columns more than there are pieces, minus infinity, which no loss sees."""

    def decode(self, x: Tensor, table: str, bias: str) -> Tensor:
        weight, shift = self.cast(table), self.cast(bias)
        more = -len(weight) % GRAIN
        padded = functional.pad(weight, (0, 0, 0, more))
        return functional.linear(x, padded, functional.pad(shift, (0, more), value=-torch.inf))  # (M, V and more)
