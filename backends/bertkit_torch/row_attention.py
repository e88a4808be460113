"""Self-attention over rows of one width that hold several sequences each, by torch's own kernels; all shapes static.

Dropout is the kernels' own, from the device's generator, which is seeded before each forward pass.

Legend: R rows, S width, N slots (R * S), H hidden, A heads, D head size, K stretches that attention is kept within.
Sources: Vaswani et al. 2017, arXiv:1706.03762; Dao 2023, arXiv:2307.08691 (flash attention over ragged stretches).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from bertkit_torch.dropout import Dropout

# (queries, keys, values (R, A, S, D), allowed (R, 1, S, S), dropout rate) -> (R, A, S, D)
RowKernel = Callable[[Tensor, Tensor, Tensor, Tensor, float], Tensor]
# (queries, keys, values (N, A, D), bounds (K + 1,) int32, longest, dropout rate) -> (N, A, D)
StretchKernel = Callable[[Tensor, Tensor, Tensor, Tensor, int, float], Tensor]


@dataclass(frozen=True)
class InRows:
    """Each row is one call's batch member; a mask keeps its sequences apart."""

    allowed: Tensor  # (R, 1, S, S) bool
    count: int  # A
    kernel: RowKernel
    whole = True  # all slots ask

    def __call__(self, parts: tuple[Tensor, ...], drop: Dropout, rate: float, dtype: torch.dtype) -> Tensor:
        rows, _, width, _ = self.allowed.shape
        (joined,) = parts  # (N, 3H)
        query, key, value = joined.view(rows, width, 3, self.count, -1).permute(2, 0, 3, 1, 4).unbind(0)
        found = self.kernel(query, key, value, self.allowed, rate if drop.on else 0.0)
        return found.transpose(1, 2).reshape(rows * width, -1)


@dataclass(frozen=True)
class InStretches:
    """One call over all slots; a kernel that takes ragged stretches keeps them apart."""

    bounds: Tensor  # (K + 1,) int32
    longest: int
    count: int  # A
    kernel: StretchKernel
    whole = True

    def __call__(self, parts: tuple[Tensor, ...], drop: Dropout, rate: float, dtype: torch.dtype) -> Tensor:
        (joined,) = parts  # (N, 3H)
        query, key, value = joined.view(len(joined), 3, self.count, -1).unbind(1)
        found = self.kernel(query, key, value, self.bounds, self.longest, rate if drop.on else 0.0)
        return found.reshape(len(joined), -1)


def allowed(segments: Tensor, rows: int) -> Tensor:
    """(N,) -> (R, 1, S, S): slots of the same segment see each other; so do a row's empty slots, which nobody reads."""
    held = segments.view(rows, 1, -1)
    return held[..., :, None] == held[..., None, :]


def sdpa(query: Tensor, key: Tensor, value: Tensor, mask: Tensor, rate: float) -> Tensor:
    """torch's scaled dot product attention, whatever kernel it takes on this device."""
    return functional.scaled_dot_product_attention(query, key, value, mask, rate)


def plain(query: Tensor, key: Tensor, value: Tensor, mask: Tensor, rate: float) -> Tensor:
    """Two products and a softmax between them: the reference."""
    scores = torch.matmul(query * (1 / math.sqrt(query.shape[-1])), key.transpose(-1, -2))
    chances = torch.softmax(scores.masked_fill(~mask, float("-inf")), -1)
    return torch.matmul(functional.dropout(chances, rate, training=rate > 0), value)


ROWS: Mapping[str, RowKernel] = {"sdpa": sdpa, "plain": plain}


def stretches_by_mask(query: Tensor, key: Tensor, value: Tensor, bounds: Tensor, longest: int, rate: float) -> Tensor:
    """What a ragged kernel computes, by a mask over all slots: for tests and for devices without one."""
    places = torch.arange(len(query), device=query.device)
    held = torch.searchsorted(bounds.to(places.dtype), places, right=True)
    mask = (held[:, None] == held[None, :])[None, None]
    query, key, value = (part.transpose(0, 1)[None] for part in (query, key, value))  # (1, A, N, D)
    return plain(query, key, value, mask, rate)[0].transpose(0, 1)
