"""How the tokens of a ragged batch are laid out for a chip: padded, unpadded, or packed in rows of one width.

Every layout is the same two things: where each token stands (`slots`), and which slots attend to one another
(`groups`). The encoder's dense layers see N slots in a row and need no more; the numbers are the same in all.

Legend: T tokens, N slots (N = T where nothing is padded), B sequences, G rows of an attention group, S its width.
"""

from __future__ import annotations

import bisect
from dataclasses import dataclass

import numpy as np

from bertkit.engine.interface import Batch, LayoutKind, sequence_lengths
from bertkit.errors import UserError


@dataclass(frozen=True)
class Group:
    """Rows of slots for one attention call: two slots of a row attend to each other if their segments are equal."""

    slots: np.ndarray  # (G, S) int64 into N; padding points at the row's first slot
    segments: np.ndarray  # (G, S) int32; 0 is padding

    @property
    def one_segment_a_row(self) -> bool:
        """Whether a mask over keys is enough: each row holds one sequence."""
        return bool(self.segments.max(initial=0) <= 1)


@dataclass(frozen=True)
class Grain:
    """What an unpadded batch is rounded up to, so that batches have few shapes and a chip's kernels fit them."""

    slots: int = 1  # a power of two; taken where the tail is 1/`share` of the tokens at the most, else a smaller one
    share: int = 32
    least: int = 1  # a power of two up to `slots`, whose multiple is taken whatever the share
    alone: int = 0  # tokens from which one short sequence is rounded up too; 0: it never is
    width: int = 1  # of a group's rows
    waste: float = 0.2  # most of a row that stays empty for a sequence to join its group, before the rounding up

    def tail(self, tokens: int) -> int:
        """Slots without a token behind so many tokens."""
        step = self.slots
        while step > self.least and tokens < self.share * step:
            step //= 2
        return -tokens % step


FINE = Grain()


@dataclass(frozen=True)
class Layout:
    """A batch in places: `groups` cover every slot exactly once (or are rows of it, padding included)."""

    kind: LayoutKind
    input_ids: np.ndarray  # (N,) int64
    token_type_ids: np.ndarray  # (N,) int64
    position_ids: np.ndarray  # (N,) int64
    token_slots: np.ndarray  # (T,) int64: the slot of each of the batch's tokens
    groups: tuple[Group, ...]

    @property
    def slots(self) -> int:
        return len(self.input_ids)


def lay_out(batch: Batch, kind: LayoutKind, width: int = 0, grain: Grain = FINE) -> Layout:
    """`batch` as `kind`. `width` is the row's length where rows are asked for; 0: as long as the longest sequence.

    `grain` is for unpadded batches: slots without a token stand behind the tokens, in no group.
    """
    lengths = sequence_lengths(batch)
    longest = int(lengths.max(initial=1))
    if width and width < longest:
        raise UserError(f"a row of {width} tokens cannot hold a sequence of {longest}", "make the rows longer")
    if kind == "unpadded":
        tokens = int(lengths.sum())
        groups = length_groups(lengths, grain.waste, multiple=grain.width)
        return _place(batch, kind, np.arange(tokens), tokens + grain.tail(tokens), groups)
    rows = pack(lengths, width or longest) if kind == "packed" else [[i] for i in range(len(lengths))]
    return in_rows(batch, kind, lengths, rows, width or longest)


def pack(lengths: np.ndarray, width: int) -> list[list[int]]:
    """Sequences put into as few rows as best-fit decreasing finds: each row's sequence indices.

    Krell et al. 2021, arXiv:2107.02027, compare packers for BERT; best-fit is within a few per cent of theirs.
    """
    rows: list[list[int]] = []
    room: list[tuple[int, int]] = []  # (tokens that still fit, row), ascending
    for index in np.argsort(-lengths, kind="stable").tolist():
        length = int(lengths[index])
        place = bisect.bisect_left(room, (length, -1))
        if place < len(room):
            space, row = room.pop(place)
            rows[row].append(index)
        else:
            space, row = width, len(rows)
            rows.append([index])
        bisect.insort(room, (space - length, row))
    return rows


def length_groups(
    lengths: np.ndarray, waste: float = 0.2, most_tokens: int = 8192, multiple: int = 1
) -> tuple[Group, ...]:
    """Sequences sorted by length and cut into groups, each padded to its own longest, rounded up to a `multiple`.

    A group ends where a sequence, rounded up, would leave more than `waste` of its row empty, or at `most_tokens`.
    """
    starts = np.concatenate([[0], np.cumsum(lengths)])
    rounded = lengths + -lengths % multiple
    order = np.argsort(-lengths, kind="stable")
    groups: list[Group] = []
    first = 0
    while first < len(order):
        width = int(rounded[order[first]])
        end = first + 1
        while (
            end < len(order) and rounded[order[end]] >= (1 - waste) * width and (end - first + 1) * width <= most_tokens
        ):
            end += 1
        members = order[first:end]
        columns = np.arange(width)
        real = columns < lengths[members][:, None]  # (G, S)
        slots = starts[members][:, None] + np.where(real, columns, 0)
        groups.append(Group(slots.astype(np.int64), real.astype(np.int32)))
        first = end
    return tuple(groups)


def in_rows(batch: Batch, kind: LayoutKind, lengths: np.ndarray, rows: list[list[int]], width: int) -> Layout:
    """The batch with these of its sequences in each row; a row may be empty."""
    first_slot = np.zeros(len(lengths), np.int64)
    segments = np.zeros((len(rows), width), np.int32)
    for row, members in enumerate(rows):
        column = 0
        for number, index in enumerate(members, start=1):
            length = int(lengths[index])
            first_slot[index] = row * width + column
            segments[row, column : column + length] = number
            column += length
    token_slots = np.repeat(first_slot, lengths) + _positions(lengths)
    slots = np.arange(len(rows) * width, dtype=np.int64).reshape(len(rows), width)
    return _place(batch, kind, token_slots, slots.size, (Group(slots, segments),) if len(rows) else ())


def _place(batch: Batch, kind: LayoutKind, token_slots: np.ndarray, slots: int, groups: tuple[Group, ...]) -> Layout:
    def spread(values: np.ndarray) -> np.ndarray:
        places = np.zeros(slots, np.int64)
        places[token_slots] = values
        return places

    positions = _positions(sequence_lengths(batch))
    return Layout(
        kind,
        spread(batch["input_ids"]),
        spread(batch["token_type_ids"]),
        spread(positions),
        token_slots.astype(np.int64),
        groups,
    )


def _positions(lengths: np.ndarray) -> np.ndarray:
    """(T,) each token's place within its sequence, from 0."""
    starts = np.cumsum(lengths) - lengths
    positions: np.ndarray = np.arange(int(lengths.sum())) - np.repeat(starts, lengths)
    return positions
