"""What the model reads of a batch, whatever its layout.

Legend: N slots, T tokens, B sequences, M masked positions, H hidden, W slots that the last layer is computed for.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from bertkit_torch.dropout import Dropout


class Attention(Protocol):
    """How the slots of one batch attend."""

    @property
    def whole(self) -> bool:
        """Whether all slots ask in every layer; the last could do with fewer."""

    def __call__(self, parts: tuple[Tensor, ...], drop: Dropout, rate: float, dtype: torch.dtype) -> Tensor:
        """-> (W, H), or (N, H) where all ask.

        `parts`: (N, 3H), queries, keys and values side by side, where all slots ask; else queries (W, H), and keys with
        values (N, 2H). `dtype`: of the scores and their softmax, where the kernel leaves a choice.
        """


@dataclass(frozen=True)
class Seen:
    """What the model reads of a batch, on the device."""

    input_ids: Tensor  # (N,)
    token_type_ids: Tensor  # (N,)
    position_ids: Tensor  # (N,)
    attention: Attention
    last: Attention  # of the last layer
    asking: Tensor | None  # (W,) the slots that the last layer is computed for; None: all
    # Where the last layer's output holds what a head reads:
    first: Tensor  # (B,) each sequence's first token
    masked: Tensor  # (M,) the masked positions; behind them may stand spare ones
    tokens: Tensor | None  # (T,) all tokens, for a head that reads them; None: all slots
