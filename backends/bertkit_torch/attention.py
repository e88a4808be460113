"""Ragged self-attention by groups of rows: one batched matrix product for each group of like lengths.

Legend: N slots, H hidden, A heads, D head size, G rows of a group, S its width, K places in the rows of all groups.
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
    move = placed.move
    if move is None:
        (rows,) = placed.rows
        return attend_rows(qkv, rows, heads, drop, rate)
    places = _move(qkv, move.index, move.inverse, None)  # (K, 3H)
    parts = torch.split(places, [rows.shape[0] * rows.shape[1] for rows in placed.rows])
    found = [attend_rows(part, rows, heads, drop, rate) for part, rows in zip(parts, placed.rows, strict=True)]
    return _move(torch.cat(found), move.inverse, move.index, move.real)


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


def _move(x: Tensor, there: Tensor, back: Tensor, real: Tensor | None) -> Tensor:
    moved: Tensor = _Move.apply(x, there, back, real)  # type: ignore[no-untyped-call]
    return moved


class _Move(torch.autograd.Function):
    """x -> x[there]; the gradient comes back as gradient[back], zero where `real` is False.

    Exact, because padding has no gradient of its own: its keys are masked and its queries are not read. Autograd
    would add rows up one by one instead, since it cannot know that each slot stands in one real place.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, there: Tensor, back: Tensor, real: Tensor | None) -> Tensor:
        ctx.save_for_backward(back, real)
        return x.index_select(0, there)

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> tuple[Tensor, None, None, None]:
        back, real = ctx.saved_tensors
        gradient = gradients[0].index_select(0, back)
        return gradient if real is None else gradient * real, None, None, None
