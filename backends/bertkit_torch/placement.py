"""A neutral layout as tensors on a device, with the index arithmetic that attention needs.

Attention works on rows of one head each, so that one indexed move brings slots and heads into place at once.

Legend: T tokens, N slots, B sequences, M masked positions, A heads, D head size, G rows of a group, S its keys,
Q its queries a row, W slots that ask, K places in the rows of all groups, padding included.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from bertkit.plugin import PER_TOKEN, Batch, Group, Head, Layout, LayoutKind

SHORT = 128  # slots; a longer sequence gains nothing by torch's kernel
TAIL = 32  # slots that ask and masked positions are rounded up to a multiple, so that few shapes occur


@dataclass(frozen=True)
class Rows:
    """One attention call: its shape, and who may see whom."""

    shape: tuple[int, int, int]  # G, Q, S
    bias: Tensor | None  # 0 where attention is allowed, else -inf: (G, 1, 1, S) or (G, 1, Q, S); None: everywhere


@dataclass(frozen=True)
class Move:
    """How the heads of slots come to stand in rows, and back. A slot's heads are rows of D values."""

    index: Tensor  # (places,): the slot's head that stands in each place; padding repeats its row's first
    inverse: Tensor  # (heads of slots,): where each stands; slots behind the last of these stand nowhere
    heads: int  # of a slot: A for each of queries, keys and values


@dataclass(frozen=True)
class Heads:
    """One layer's attention: the rows of each group as (G, A, Q or S), groups one after another."""

    rows: tuple[Rows, ...]
    parts: tuple[Move, ...]  # of queries, keys and values from one tensor; or of queries, and of keys with values
    found: Move  # of what attention finds: `inverse` brings it to the slots that ask
    padding: Tensor | None  # the places of queries that nobody asks
    asking: int  # W
    count: int  # A


@dataclass(frozen=True)
class Placed:
    """The tensors that the model reads."""

    input_ids: Tensor  # (N,)
    token_type_ids: Tensor  # (N,)
    position_ids: Tensor  # (N,)
    heads: Heads | None  # None: where sequences are taken one by one
    last: Heads | None  # of the last layer where it is computed for a part of the slots only
    asking: Tensor | None  # (W,) those slots
    # Where the last layer's output holds what a head reads:
    first: Tensor  # (B,) each sequence's first token
    masked: Tensor  # (M,) the masked positions, and spare ones behind them
    tokens: Tensor  # (T,) all tokens; none where the last layer is computed for a part


@dataclass(frozen=True)
class _Target:
    """Where the tensors go."""

    device: torch.device
    dtype: torch.dtype  # of the masks

    def tensor(self, values: np.ndarray) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(values, np.int64)).to(self.device)


_Stand = Sequence[tuple[np.ndarray, np.ndarray]]  # for each group: slots (G, Q or S), and whether the place is theirs


def place(
    layout: Layout,
    batch: Batch,
    head: Head,
    heads: int,
    device: torch.device,
    dtype: torch.dtype,
    *,
    last_only: bool = False,
) -> Placed:
    """`layout` of `batch` for a model with this head and so many attention heads, 0: that need no rows; masks in
    `dtype`. `last_only`: rows are needed in the last layer alone, where it is computed for a part of the slots."""
    kind = head.kind
    target = _Target(device, dtype)
    nothing = target.tensor(np.empty(0))
    inputs = layout.input_ids, layout.token_type_ids, layout.position_ids
    words, types, positions = (target.tensor(values) for values in inputs)
    full = last = None
    if heads and not last_only:
        all_ask = [_Asked(group.slots, _standing(layout, group), group.segments) for group in layout.groups]
        full = _heads(layout, all_ask, layout.slots, heads, target, joined=True)
    first = layout.token_slots[batch["cu_seqlens"][:-1]]
    masked = layout.token_slots[batch["masked_positions"]] if kind == "pretraining" else np.empty(0, np.int64)
    if kind in PER_TOKEN or head.states:
        every = target.tensor(layout.token_slots)
        asked = target.tensor(np.concatenate([masked, np.zeros(-len(masked) % TAIL)])) if len(masked) else nothing
        return Placed(words, types, positions, full, None, None, target.tensor(first), asked, every)
    count = len(first) + len(masked)
    tail = np.zeros(-count % TAIL if len(masked) else 0)
    asking = np.concatenate([first, masked, tail]).astype(np.int64)
    if heads:
        some_ask = [_asked(group, asking[:count], layout.slots) for group in layout.groups]
        last = _heads(layout, some_ask, len(asking), heads, target, joined=False)
    spare = np.zeros(-len(masked) % TAIL)
    first_found = target.tensor(np.arange(len(first)))
    masked_found = target.tensor(np.concatenate([np.arange(len(first), count), spare]))
    return Placed(words, types, positions, full, last, target.tensor(asking), first_found, masked_found, nothing)


def is_short_and_alone(batch: Batch) -> bool:
    """Whether the batch is one short sequence."""
    return len(batch["cu_seqlens"]) == 2 and 0 < len(batch["input_ids"]) <= SHORT


def as_it_comes(batch: Batch, kind: LayoutKind, tail: int = 0) -> Layout:
    """One sequence, its tokens in order and `tail` slots behind them; it needs no group."""
    places = np.arange(len(batch["input_ids"]))
    rows = batch["input_ids"], batch["token_type_ids"], places
    words, types, positions = (np.concatenate([row, np.zeros(tail, np.int64)]) for row in rows)
    return Layout(kind, words, types, positions, places, ())


@dataclass(frozen=True)
class _Asked:
    """The queries of one group."""

    index: np.ndarray  # (G, Q) into the slots that ask; padding points at any
    standing: np.ndarray  # (G, Q) bool: the places that are a query's own
    segments: np.ndarray  # (G, Q): whose keys each sees


def _asked(group: Group, asking: np.ndarray, slots: int) -> _Asked:
    """The group's share of the slots `asking` (W,), row by row."""
    rows = len(group.slots)
    real = group.segments > 0
    row_of, segment_of = np.full(slots, -1), np.zeros(slots, group.segments.dtype)
    row_of[group.slots[real]] = np.nonzero(real)[0]
    segment_of[group.slots[real]] = group.segments[real]
    mine = np.flatnonzero(row_of[asking] >= 0)
    mine = mine[np.argsort(row_of[asking[mine]], kind="stable")]
    row = row_of[asking[mine]]
    counts = np.bincount(row, minlength=rows)
    most = int(counts.max(initial=1))
    most += -most % 8 if most > 1 else 0
    column = np.arange(len(mine)) - np.repeat(np.cumsum(counts) - counts, counts)
    index = np.zeros((rows, most), np.int64)
    index[row, column] = mine
    segments = np.repeat(group.segments[:, :1], most, 1)  # a row's first slot is real: padding sees something too
    segments[row, column] = segment_of[asking[mine]]
    return _Asked(index, np.arange(most) < counts[:, None], segments)


def _heads(layout: Layout, asked: Sequence[_Asked], asking: int, heads: int, target: _Target, joined: bool) -> Heads:
    """`joined`: queries, keys and values are one tensor (N, 3H); else queries (W, H), keys and values (N, 2H)."""
    asks = [(one.index, one.standing) for one in asked]
    keys = [(group.slots, _standing(layout, group)) for group in layout.groups]
    parts: tuple[Move, ...]
    if joined:
        parts = (_move([(asks, 0), (keys, 1), (keys, 2)], 3, heads, target),)
    else:
        parts = (_move([(asks, 0)], 1, heads, target), _move([(keys, 0), (keys, 1)], 2, heads, target))
    standing = np.concatenate([np.repeat(stands[:, None], heads, 1).reshape(-1) for _, stands in asks])
    return Heads(
        tuple(_rows(group, one, target) for group, one in zip(layout.groups, asked, strict=True)),
        parts,
        _move([(asks, 0)], 1, heads, target),
        None if standing.all() else target.tensor(np.flatnonzero(~standing)),
        asking,
        heads,
    )


def _standing(layout: Layout, group: Group) -> np.ndarray:
    """(G, S) bool: the places that are a slot's own. In rows, padding has slots too; unpadded, it has none."""
    stands: np.ndarray = group.segments > 0 if layout.kind == "unpadded" else np.ones(group.slots.shape, bool)
    return stands


def _move(blocks: Sequence[tuple[_Stand, int]], parts: int, heads: int, target: _Target) -> Move:
    """`blocks`: who stands where, and which of the tensor's `parts` (of H values each) is brought there."""
    index, inverse, before = [], [], 0
    for groups, part in blocks:
        head = np.arange(heads)[:, None] + part * heads
        index += [(slots[:, None, :] * (parts * heads) + head).reshape(-1) for slots, _ in groups]
        home = np.empty((sum(int(stands.sum()) for _, stands in groups), heads), np.int64)
        for slots, stands in groups:
            rows, width = slots.shape
            places = before + np.arange(rows * heads * width).reshape(rows, heads, width)
            home[slots[stands]] = places.transpose(0, 2, 1)[stands]
            before += places.size
        inverse.append(home)
    back = np.concatenate(inverse, 1).reshape(-1)
    return Move(target.tensor(np.concatenate(index)), target.tensor(back), parts * heads)


def _rows(group: Group, asked: _Asked, target: _Target) -> Rows:
    shape = (*asked.index.shape, group.slots.shape[1])
    if (group.segments == 1).all():
        return Rows(shape, None)
    if group.one_segment_a_row:
        hidden = (group.segments == 0)[:, None, None, :]
    else:
        hidden = (asked.segments[:, :, None] != group.segments[:, None, :])[:, None]
    bias = torch.zeros(hidden.shape, dtype=target.dtype).masked_fill_(torch.from_numpy(hidden), float("-inf"))
    return Rows(shape, bias.to(target.device))
