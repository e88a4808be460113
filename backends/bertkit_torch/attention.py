"""Ragged self-attention by groups of rows: one batched matrix product for each group of like lengths.

Legend: N slots, H hidden, A heads, D head size, G rows of a group, S its width, K slots of all groups.
Source: Vaswani et al. 2017, arXiv:1706.03762, section 3.2.1.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from bertkit_torch.dropout import Dropout
from bertkit_torch.placement import Placed, Rows


def attend(qkv: Tensor, placed: Placed, heads: int, drop: Dropout, rate: float) -> Tensor:
    """(N, 3H) queries, keys and values side by side -> (N, H). Slots see those of their own sequence only."""
    if placed.in_order:
        (rows,) = placed.rows
        return attend_rows(qkv, rows, heads, drop, rate)
    parts = [attend_rows(_gather(qkv, rows), rows, heads, drop, rate) for rows in placed.rows]
    index = torch.cat([rows.index for rows in placed.rows])
    real = torch.cat([rows.real for rows in placed.rows])
    result: Tensor = _Scatter.apply(torch.cat(parts), placed.inverse, index, real)  # type: ignore[no-untyped-call]
    return result


def _gather(qkv: Tensor, rows: Rows) -> Tensor:
    gathered: Tensor = _Gather.apply(qkv, rows.index, rows.real)  # type: ignore[no-untyped-call]
    return gathered


def attend_rows(qkv: Tensor, rows: Rows, heads: int, drop: Dropout, rate: float) -> Tensor:
    """(G*S, 3H) -> (G*S, H)."""
    height, width = rows.shape
    size = qkv.shape[1] // (3 * heads)
    query, key, value = qkv.view(height, width, 3, heads, size).permute(2, 0, 3, 1, 4)  # each (G, A, S, D)
    scores = torch.matmul(query * (1.0 / math.sqrt(size)), key.transpose(-1, -2))  # (G, A, S, S)
    if rows.mask is not None:
        scores = scores.masked_fill(~rows.mask, float("-inf"))
    found = torch.matmul(drop(torch.softmax(scores, -1), rate), value)  # (G, A, S, D)
    return found.transpose(1, 2).reshape(height * width, heads * size)


class _Gather(torch.autograd.Function):
    """x (N, C) -> x[index] (G*S, C), each slot once and some again as padding.

    Padding's gradient is exactly zero (its keys are masked, its queries are not read), so the gradient is a plain
    indexed write, not the slow accumulating one that autograd would choose.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, index: Tensor, real: Tensor) -> Tensor:
        ctx.save_for_backward(index, real)
        ctx.slots = x.shape[0]
        return x.index_select(0, index)

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> tuple[Tensor, None, None]:
        index, real = ctx.saved_tensors
        (grad,) = gradients
        result = grad.new_zeros((ctx.slots, grad.shape[1]))
        result[index[real]] = grad[real]
        return result, None, None


class _Scatter(torch.autograd.Function):
    """y (K, C) -> y[inverse] (N, C): padding falls away; in the gradient it is zero."""

    @staticmethod
    def forward(ctx: Any, y: Tensor, inverse: Tensor, index: Tensor, real: Tensor) -> Tensor:
        ctx.save_for_backward(index, real)
        return y.index_select(0, inverse)

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> tuple[Tensor, None, None, None]:
        index, real = ctx.saved_tensors
        (grad,) = gradients
        return grad.index_select(0, index) * real[:, None], None, None, None
