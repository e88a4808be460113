"""A ragged batch as arrays of fixed sizes, for chips that make a program for each shape they meet.

Sequences are packed into rows of one width; rows, sequences and masked positions are filled up with some that no loss
counts. A run's batches then have few sizes, known before its first update, so that nothing is compiled after it.

Legend: R rows, S width of a row, N slots (R * S), B sequences, M masked positions, K attention's segments.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from bertkit.engine.interface import NO_LABEL, Batch, Limits, sequence_lengths
from bertkit.engine.layouts import in_rows, pack
from bertkit.errors import UserError
from bertkit.model.config import HeadKind

IS_REAL: tuple[HeadKind, ...] = ("multilabel", "regression")  # heads whose labels are real numbers
EIGHT = 8  # widths and slots are multiples of it: matrix units like that
FLAT = 128  # slots of the one long row are multiples of it


@dataclass(frozen=True)
class Sizes:
    """Batches of the same sizes have the same shapes throughout."""

    rows: int
    width: int
    sequences: int
    masked: int
    longest: int  # of a sequence

    @property
    def slots(self) -> int:
        return self.rows * self.width

    @property
    def segments(self) -> int:
        """Most stretches that attention is kept within: the sequences, and each row's rest in pieces."""
        return self.sequences + self.rows * math.ceil(self.width / self.longest)

    def __str__(self) -> str:
        masked = f", {self.masked} masked" if self.masked else ""
        return f"{self.rows} x {self.width} ({self.sequences} sequences{masked})"


@dataclass(frozen=True)
class Shapes:
    """The sizes that a run's batches are rounded up to; they differ in their rows, or in the one row's width."""

    longest: int
    sequences: int
    masked: int
    steps: tuple[int, ...]  # rows, or where `flat` the widths of the one row; ascending
    flat: bool = False

    def __iter__(self) -> Iterator[Sizes]:
        return (self._sizes(step) for step in self.steps)

    def __len__(self) -> int:
        return len(self.steps)

    def _sizes(self, step: int) -> Sizes:
        rows, width = (1, step) if self.flat else (step, self.longest)
        return Sizes(rows, width, self.sequences, self.masked, self.longest)

    def fit(self, lengths: np.ndarray, masked: int = 0) -> Sizes | None:
        """The smallest sizes that hold sequences of these lengths (B,); None where none does."""
        if len(lengths) > self.sequences or masked > self.masked or lengths.max(initial=1) > self.longest:
            return None
        needed = int(lengths.sum()) if self.flat else len(pack(lengths, self.longest))
        return next((self._sizes(step) for step in self.steps if step >= needed), None)


def shapes(limits: Limits, count: int, flat: bool = False) -> Shapes:
    """At most `count` sizes for batches within `limits`, evenly from few rows to a row for each sequence.

    Raises UserError where there is to be none.
    """
    if count < 1:
        raise UserError(f"device.shapes = {count}: no batch has a size", "set it to 1 or more")
    longest = _up(limits.longest, EIGHT)
    most = limits.sequences * (longest if flat else 1)
    grain = FLAT if flat else 1
    steps = sorted({_up(math.ceil(most * number / count), grain) for number in range(1, count + 1)})
    return Shapes(longest, limits.sequences, limits.masked, tuple(steps), flat)


def shapes_of(lengths: np.ndarray, masked: int, flat: bool = False) -> Shapes:
    """The one size for a batch that no limits were given for: each amount rounded up to two significant bits."""
    longest = _up(int(lengths.max(initial=1)), EIGHT)
    needed = _up(_rounded(int(lengths.sum())), FLAT) if flat else _rounded(len(pack(lengths, longest)))
    return Shapes(longest, _rounded(len(lengths)), _rounded(masked) if masked else 0, (needed,), flat)


def _up(value: int, grain: int) -> int:
    return max(1, -(-value // grain)) * grain


def _rounded(value: int) -> int:
    """Up to 1, 2, 3, 4, 6, 8, 12, 16, … : less than half more."""
    power = 1 << max(0, value.bit_length() - 2)
    return _up(value, power)


@dataclass(frozen=True)
class Static:
    """A batch in arrays whose shapes follow from `sizes` and the head alone."""

    sizes: Sizes
    sequences: int  # that are real
    token_slots: np.ndarray  # (T,) the slot of each of the batch's tokens
    whole: Mapping[str, np.ndarray]  # int64: what the encoder, the head and its loss read
    real: Mapping[str, np.ndarray]  # float32: likewise


def static(batch: Batch, kind: HeadKind, sizes: Sizes, counts: Mapping[str, int] | None = None) -> Static:
    """`batch` in `sizes`, which must hold it. `counts`: what the losses are divided by; without, no labels are taken.

    Whole: input_ids, token_type_ids, position_ids, segments (N,) · first, lengths (B,) of each sequence ·
    bounds (K + 1,) of the stretches that attention is kept within · masked (M,) slots · the head's labels, with
    NO_LABEL where there is none; token_labels (N,). Real: counts (2,) sequences, and masked or labelled tokens ·
    for labels that are no classes (`IS_REAL`): labels (B,) or (B, C), and counted (B,).
    """
    lengths = sequence_lengths(batch)
    rows = [list(range(len(lengths)))] if sizes.rows == 1 else pack(lengths, sizes.width)
    layout = in_rows(batch, "packed", lengths, rows + [[]] * (sizes.rows - len(rows)), sizes.width)
    starts = layout.token_slots[batch["cu_seqlens"][:-1]]
    segments = layout.groups[0].segments.reshape(-1)
    whole = {
        "input_ids": layout.input_ids,
        "token_type_ids": layout.token_type_ids,
        "position_ids": layout.position_ids,
        "segments": segments.astype(np.int64),
        "first": _filled(starts, sizes.sequences, 0),
        "lengths": _filled(lengths, sizes.sequences, 1),
        "bounds": _bounds(starts, lengths, sizes),
    }
    real: dict[str, np.ndarray] = {}
    if kind == "pretraining":
        whole["masked"] = _filled(layout.token_slots[batch["masked_positions"]], sizes.masked, 0)
    if counts is not None:
        positions = counts.get("masked", counts.get("tokens", 1))
        real["counts"] = np.array([counts["sequences"], max(1, positions)], np.float32)
        wanted = {name: batch[name] for name in ("labels", "start_positions", "end_positions") if name in batch}
        if kind in IS_REAL:
            real["labels"] = _filled(wanted.pop("labels"), sizes.sequences, 0.0).astype(np.float32)
            real["counted"] = (np.arange(sizes.sequences) < len(lengths)).astype(np.float32)
        whole |= {name: _filled(values, sizes.sequences, NO_LABEL) for name, values in wanted.items()}
        if kind == "tokens":
            whole["token_labels"] = np.full(sizes.slots, NO_LABEL, np.int64)
            whole["token_labels"][layout.token_slots] = batch["token_labels"]
        if kind == "pretraining":
            whole["masked_labels"] = _filled(batch["masked_labels"], sizes.masked, NO_LABEL)
    return Static(sizes, len(lengths), layout.token_slots, whole, real)


def _filled(values: np.ndarray, size: int, fill: float) -> np.ndarray:
    filled = np.full((size, *values.shape[1:]), fill, np.float32 if values.dtype.kind == "f" else np.int64)
    filled[: len(values)] = values
    return filled


def _bounds(starts: np.ndarray, lengths: np.ndarray, sizes: Sizes) -> np.ndarray:
    """(K + 1,) from 0 to N, ascending: no stretch is longer than the longest sequence; the last are empty."""
    ends = starts + lengths
    edges = [np.arange(sizes.rows + 1) * sizes.width, starts, ends]
    last = np.zeros(sizes.rows, np.int64)  # where each row's sequences end
    np.maximum.at(last, starts // sizes.width, ends)
    for row, end in enumerate(np.maximum(last, np.arange(sizes.rows) * sizes.width)):
        edges.append(np.arange(end, (row + 1) * sizes.width, sizes.longest))
    found = np.unique(np.concatenate(edges))
    return np.concatenate([found, np.full(sizes.segments + 1 - len(found), sizes.slots)]).astype(np.int64)
