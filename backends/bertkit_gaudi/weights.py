"""Layers under autocast, and the vendor's fused attention.

Legend: R rows, S width, A heads, D head size.
"""

from __future__ import annotations

import torch
from torch import Tensor

from bertkit_torch.weights import ComputeWeights


class AutocastWeights(ComputeWeights):
    """fp32 weights as they are: autocast casts at each operator, as its lists say."""

    def dense_fp32(self, x: Tensor, name: str) -> Tensor:
        with torch.autocast("hpu", enabled=False):
            return super().dense_fp32(x, name)


KEPT = 512  # S up to which the weights (R, A, S, S) are kept for the backward pass; computed again for longer rows


def fused_sdpa(query: Tensor, key: Tensor, value: Tensor, mask: Tensor, rate: float) -> Tensor:
    """(R, A, S, D); `mask` (R, 1, S, S). FusedSDPA is an autograd function: its arguments go by position.

    Whether it recomputes is said: left open, the bridge asks a built-in, which breaks a compiled layer in three.
    """
    from habana_frameworks.torch.hpex.kernels import FusedSDPA

    least = torch.finfo(query.dtype).min
    bias = torch.zeros(mask.shape, dtype=query.dtype, device=query.device).masked_fill(~mask, least)
    found: Tensor = FusedSDPA.apply(query, key, value, bias, rate, False, None, "None", query.shape[2] > KEPT)
    return found
