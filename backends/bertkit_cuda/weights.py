"""What training does otherwise on a GPU: the decoder over the vocabulary in a size that tensor cores are fast at, and
the gradient of the segments' embeddings by sums that run in parallel.

Legend: N slots, H hidden size, M masked positions, V pieces of the vocabulary.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from bertkit_torch.weights import NormsInFloat32

GRAIN = 64  # rows of the decoder are filled up to a multiple of it: 30,522 are no multiple of 8


class _FewRows(torch.autograd.Function):
    """An embedding whose gradient is one sum over all slots for each row of the table.

    The gradient of torch's adds up the slots of a row one after another, which for two rows is all slots in two chains.
    """

    @staticmethod
    def forward(ctx: Any, ids: Tensor, table: Tensor) -> Tensor:
        ctx.save_for_backward(ids)
        ctx.rows = len(table)
        return functional.embedding(ids, table)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[None, Tensor]:
        (ids,) = ctx.saved_tensors
        return None, torch.stack([(gradient * (ids == row)[:, None]).sum(0) for row in range(ctx.rows)])


class TrainingWeights(NormsInFloat32):
    """Of training: its logits have columns more than there are pieces, minus infinity, which no loss sees."""

    def of_few_rows(self, ids: Tensor, table: str) -> Tensor:
        found: Tensor = _FewRows.apply(ids, self.masters[table])  # type: ignore[no-untyped-call]
        return found

    def decode(self, x: Tensor, table: str, bias: str) -> Tensor:
        weight, shift = self.cast(table), self.cast(bias)
        more = -len(weight) % GRAIN
        padded = functional.pad(weight, (0, 0, 0, more))
        return functional.linear(x, padded, functional.pad(shift, (0, more), value=-torch.inf))  # (M, V and more)
