"""Ragged self-attention by groups of rows: one batched matrix product for each group of like lengths.

The gradient is written by hand: one indexed move brings all heads of all groups into place and another takes their
gradients back, and the scales of scores and dropout ride on the products.

Legend: N slots, H hidden, A heads, D head size, G rows of a group, Q queries of a row, S its keys, W slots that ask.
Source: Vaswani et al. 2017, arXiv:1706.03762, section 3.2.1.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from bertkit_torch.dropout import Dropout
from bertkit_torch.placement import Heads, Move, Rows

KEYS = 16  # of a row's scores that torch's kernel takes at once: a vector of float32


@dataclass(frozen=True)
class InGroups:
    """Rows of like lengths, one product for each group: for chips on which shapes may differ from batch to batch."""

    heads: Heads
    whole = False

    def __call__(self, parts: tuple[Tensor, ...], drop: Dropout, rate: float, dtype: torch.dtype) -> Tensor:
        return attend(parts, self.heads, drop, rate, dtype)


@dataclass(frozen=True)
class OfOne:
    """One sequence's, without dropout or a gradient: nothing is moved, and torch's kernel does in one call what takes
    twelve for groups, which is most of the time where the sequence is short."""

    count: int  # A
    mask: Tensor | None = None  # (1, 1, 1, N): 0, or -inf at a slot without a token; None: there is none
    whole = False

    def __call__(self, parts: tuple[Tensor, ...], drop: Dropout, rate: float, dtype: torch.dtype) -> Tensor:
        """The softmax is in float32 whatever the dtype."""
        (joined,) = parts  # the encoder's layers bind theirs beforehand (`bertkit_torch.short`)
        return of_joined(joined, self.count, None if self.mask is None else self.mask.to(joined.dtype))


@dataclass(frozen=True)
class Window:
    """The slots of one sequence, and those that it is shown: a few of its neighbours', which the mask hides."""

    start: int
    end: int
    first: int
    last: int
    mask: Tensor | None  # (1, 1, queries, keys): 0, or -inf at a neighbour's; None: nothing is hidden


@dataclass(frozen=True)
class OneByOne:
    """Sequences one after another by torch's kernel, without dropout or a gradient: for chips on which that is faster
    than groups. All slots ask."""

    count: int  # A
    windows: tuple[Window, ...]
    dtype: torch.dtype  # of what is found
    whole = False

    def __call__(self, parts: tuple[Tensor, ...], drop: Dropout, rate: float, dtype: torch.dtype) -> Tensor:
        """The softmax is in float32 whatever the dtype."""
        (joined,) = parts
        query, key, value = (part[None] for part in apart(joined, self.count))
        found = joined.new_empty(len(joined), joined.shape[1] // 3, dtype=self.dtype)
        places = torch.unflatten(found, 1, (self.count, -1)).transpose(0, 1)[None]  # (1, A, N, D), as the others
        for one in self.windows:
            seen = one.first, one.last - one.first
            asks = 2, one.start, one.end - one.start
            heads = torch.nn.functional.scaled_dot_product_attention(
                query.narrow(*asks), key.narrow(2, *seen), value.narrow(2, *seen), one.mask
            )
            places.narrow(*asks).copy_(heads)
        found[self.windows[-1].end if self.windows else 0 :].zero_()
        return found


def windows(bounds: Sequence[int], slots: int, dtype: torch.dtype) -> tuple[Window, ...]:
    """Of sequences between these `bounds`, of so many slots in all; their widths are multiples of KEYS if they can be.

    torch's kernel takes the exponentials of the keys behind the last such multiple one at a time, which for 12 heads
    of 64 and 169 tokens is a quarter of its time.
    """
    found = []
    for start, end in itertools.pairwise(bounds):
        width = end - start + (start - end) % KEYS
        first = max(0, min(start, slots - width))
        last = min(first + width, slots)
        mask = None
        if last - first > end - start:
            mask = only(start - first, end - first, last - first, dtype).expand(1, 1, end - start, last - first)
        found.append(Window(start, end, first, last, mask))
    return tuple(found)


def only(start: int, end: int, count: int, dtype: torch.dtype) -> Tensor:
    """(1, 1, 1, count): what hides all keys but those from `start` to `end`."""
    mask = torch.full((1, 1, 1, count), float("-inf"), dtype=dtype)
    mask[..., start:end] = 0
    return mask


def of_joined(joined: Tensor, heads: int, mask: Tensor | None) -> Tensor:
    """(N, 3H), queries, keys and values of one sequence side by side -> (N, H)."""
    return of_one(*apart(joined, heads), mask)


def apart(joined: Tensor, heads: int) -> tuple[Tensor, Tensor, Tensor]:
    """(N, 3H) -> queries, keys and values, (A, N, D) each, where they stand."""
    query, key, value = torch.unflatten(joined, 1, (3, heads, -1)).permute(1, 2, 0, 3)
    return query, key, value


def of_one(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None) -> Tensor:
    """(A, W, D), (A, N, D), (A, N, D) of one sequence, (1, 1, 1, N) -> (W, H)."""
    found = torch.nn.functional.scaled_dot_product_attention(query[None], key[None], value[None], mask)[0]
    return found.transpose(0, 1).flatten(1)


@dataclass(frozen=True)
class _Plan:
    heads: Heads
    drop: Dropout
    rate: float
    dtype: torch.dtype  # of the scores and their softmax


def attend(parts: tuple[Tensor, ...], heads: Heads, drop: Dropout, rate: float, dtype: torch.dtype) -> Tensor:
    """-> (W, H). Slots see those of their own sequence only.

    `parts`: (N, 3H), queries, keys and values side by side, where all slots ask; else queries (W, H), and keys with
    values (N, 2H). `dtype`: of the scores and their softmax.
    """
    found: Tensor = _Attend.apply(_Plan(heads, drop, rate, dtype), *parts)  # type: ignore[no-untyped-call]
    return found


class _Attend(torch.autograd.Function):
    """Saved: the parts in place, and of each group the softmax and the dropout mask."""

    @staticmethod
    def forward(ctx: Any, plan: _Plan, *parts: Tensor) -> Tensor:
        heads = plan.heads
        size = parts[0].shape[1] // (heads.count * (3 if len(parts) == 1 else 1))
        placed = [part.view(-1, size).index_select(0, m.index) for part, m in zip(parts, heads.parts, strict=True)]
        found = placed[0].new_empty(len(heads.found.index), size)
        chances, kept, scale = [], [], 1.0
        for rows, out, (query, key, value) in _groups(heads, found, placed):
            chance = _softmax(query, key, rows, heads.count, plan.dtype)  # (G*A, Q, S)
            chances.append(chance)
            if plan.drop.mask is not None and plan.rate > 0:
                mask, scale = plan.drop.mask(tuple(chance.shape), chance.dtype, plan.rate)
                kept.append(mask)
                chance = chance * mask
            torch.baddbmm(out, chance.to(value.dtype), value, beta=0, alpha=scale, out=out)
        ctx.plan, ctx.scale, ctx.sizes = plan, scale, [len(part) for part in parts]
        ctx.save_for_backward(*placed, *chances, *kept)
        return _take_back(found, heads.found, heads.asking)

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> tuple[Tensor | None, ...]:
        heads, scale = ctx.plan.heads, ctx.scale
        count = len(heads.rows)
        saved = ctx.saved_tensors
        placed, saved = saved[: len(heads.parts)], saved[len(heads.parts) :]
        size = placed[0].shape[1]
        given = gradients[0].reshape(-1, size).index_select(0, heads.found.index)
        if heads.padding is not None:
            given.index_fill_(0, heads.padding, 0.0)
        taken = [torch.empty_like(part) for part in placed]
        groups = zip(_groups(heads, given, placed), _groups(heads, given, taken), strict=True)
        for number, ((_, out, (query, key, value)), (_, _, (to_query, to_key, to_value))) in enumerate(groups):
            chance, mask = saved[number], saved[count + number] if len(saved) > count else None
            used = chance if mask is None else chance * mask
            _product(to_value, used.to(out.dtype).transpose(1, 2), out, scale)
            to_chance = _product(out.new_empty(chance.shape), out, value.transpose(1, 2), scale)
            to_chance = to_chance.to(chance.dtype) if mask is None else to_chance.to(chance.dtype).mul_(mask)
            to_score = torch._softmax_backward_data(to_chance, chance, -1, chance.dtype).to(out.dtype)
            _product(to_query, to_score, key, 1 / math.sqrt(size))
            _product(to_key, to_score.transpose(1, 2), query, 1 / math.sqrt(size))
        moves = zip(taken, heads.parts, ctx.sizes, strict=True)
        return None, *(_take_back(part, move, slots) for part, move, slots in moves)


def _softmax(query: Tensor, key: Tensor, rows: Rows, heads: int, dtype: torch.dtype) -> Tensor:
    """(G*A, Q, D) and (G*A, S, D) -> (G*A, Q, S) in `dtype`."""
    query, key = query.to(dtype), key.to(dtype).transpose(1, 2)
    scores = query.new_empty(len(query), query.shape[1], key.shape[2])
    scale = 1 / math.sqrt(query.shape[2])
    if rows.bias is None:
        _product(scores, query, key, scale)
    else:
        scores.view(-1, heads, *scores.shape[1:]).copy_(rows.bias)
        scores.baddbmm_(query, key, alpha=scale)
    return torch.softmax(scores, -1)


def _product(out: Tensor, left: Tensor, right: Tensor, scale: float) -> Tensor:
    return torch.baddbmm(out, left, right, beta=0, alpha=scale, out=out)


def _groups(
    heads: Heads, found: Tensor, parts: Sequence[Tensor]
) -> Iterator[tuple[Rows, Tensor, tuple[Tensor, Tensor, Tensor]]]:
    """Of each group: its rows, and its views (G*A, Q or S, D) of what is found, of queries, keys and values."""
    size = found.shape[1]
    if len(parts) == 1:
        query, key, value = torch.split(parts[0], [len(found), *[(len(parts[0]) - len(found)) // 2] * 2])
    else:
        query, (key, value) = parts[0], parts[1].chunk(2)
    asked = seen = 0
    for rows in heads.rows:
        groups = rows.shape[0] * heads.count
        ask, see = (slice(asked, asked + groups * rows.shape[1]), slice(seen, seen + groups * rows.shape[2]))
        asked, seen = ask.stop, see.stop
        triple = query[ask].view(groups, -1, size), key[see].view(groups, -1, size), value[see].view(groups, -1, size)
        yield rows, found[ask].view(groups, -1, size), triple


def _take_back(places: Tensor, move: Move, slots: int) -> Tensor:
    """(heads in places, D) -> (slots, all heads of a slot): zero for slots that stand nowhere."""
    size = places.shape[1]
    standing = len(move.inverse)
    out = places.new_empty(slots * move.heads, size)
    torch.index_select(places, 0, move.inverse, out=out[:standing])
    out[standing:].zero_()
    return out.view(slots, -1)
