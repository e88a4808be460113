"""A ragged batch as arrays of fixed sizes, for chips that make a program for each shape they meet.

Sequences are packed into rows of one width; rows, sequences and masked positions are filled up with some that no loss
counts. A run's batches then have few sizes, known before its first update, so that nothing is compiled after it.

Legend: R rows, S width of a row, N slots (R * S), B sequences, M masked positions, K attention's segments.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from bertkit.engine.interface import LABELS, NO_LABEL, OF_TEACHER, OF_TOKENS, Batch, BatchLimits, sequence_lengths
from bertkit.engine.layouts import in_rows, pack
from bertkit.engine.steps import best_steps, even_steps, round_up
from bertkit.errors import UserError
from bertkit.model.config import HeadKind

IS_REAL: tuple[HeadKind, ...] = ("multilabel", "regression")  # heads whose labels are real numbers
EIGHT = 8  # widths and slots are multiples of it: matrix units like that
FLAT = 128  # slots of the one long row are multiples of it
RARE = 1.1  # times the masked positions of the drawn batches


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
    """The sizes that a run's batches are rounded up to, by their slots."""

    sizes: tuple[Sizes, ...]
    flat: bool = False  # one row of any width; else rows as wide as the longest sequence

    def __iter__(self) -> Iterator[Sizes]:
        return iter(self.sizes)

    def __len__(self) -> int:
        return len(self.sizes)

    def __str__(self) -> str:
        said = (str(each.width) if self.flat else f"{each.rows} x {each.width}" for each in self.sizes)
        return ", ".join(dict.fromkeys(said))  # two may differ in their masked positions alone

    def fit(self, lengths: np.ndarray, masked: int = 0) -> Sizes | None:
        """The smallest sizes that hold sequences of these lengths (B,); None where none does."""
        longest, tokens = int(lengths.max(initial=1)), int(lengths.sum())
        rows: dict[int, int] = {}  # that are needed, by their width
        for sizes in self.sizes:
            if len(lengths) > sizes.sequences or masked > sizes.masked or longest > sizes.longest:
                continue
            if tokens > sizes.slots:
                continue
            if not self.flat and sizes.width not in rows:
                rows[sizes.width] = len(pack(lengths, sizes.width))
            if self.flat or rows[sizes.width] <= sizes.rows:
                return sizes
        return None


def shapes(limits: Sequence[BatchLimits], count: int, flat: bool = False) -> Shapes:
    """At most `count` sizes for the batches of each kind: what fits its drawn batches best, else evenly spaced ones.

    Whatever batch is within the limits has a size. Raises UserError where there is to be none.
    """
    if count < 1:
        raise UserError(f"device.shapes = {count}: no batch has a size", "set it to 1 or more")
    found = {sizes for each in limits for sizes in _sizes_within(each, count, flat)}
    return Shapes(tuple(sorted(found, key=lambda sizes: (sizes.slots, sizes.masked, sizes.width))), flat)


def _sizes_within(limits: BatchLimits, count: int, flat: bool) -> Iterator[Sizes]:
    longest = round_up(limits.longest, EIGHT)
    grain, most = FLAT if flat else 1, _most_needed(limits, longest, flat)

    def sizes(step: int, masked: int) -> Sizes:
        rows, width = (1, step) if flat else (step, longest)
        return Sizes(rows, width, limits.sequences, masked, longest)

    if not limits.drawn:
        yield from (sizes(step, limits.masked) for step in even_steps(most, count, grain))
        return
    needed = np.array([_needed(each.lengths, longest, flat) for each in limits.drawn])
    masked = np.array([each.masked for each in limits.drawn])
    usual = min(limits.masked, round_up(int(masked.max()), EIGHT)) if limits.masked else 0
    rare = count > 1 and limits.masked > RARE * usual  # masked positions that no drawn batch has: sizes of their own
    steps = best_steps(needed, most, count - rare, grain)
    for step in steps[:-1]:
        yield sizes(step, min(usual, round_up(int(masked[needed <= step].max(initial=0)), EIGHT)))
    if rare:
        yield sizes(steps[-1], usual)
    yield sizes(steps[-1], limits.masked)


def _needed(lengths: np.ndarray, longest: int, flat: bool) -> int:
    """Slots, or rows as wide as the longest."""
    return int(lengths.sum()) if flat else len(pack(lengths, longest))


def _most_needed(limits: BatchLimits, longest: int, flat: bool) -> int:
    """Slots, or rows, of any batch within the limits: best fit leaves at most one row half empty."""
    if flat:
        return max(limits.most_tokens, 1)
    return max(1, min(limits.sequences, -(-2 * limits.most_tokens // longest)))


def shapes_of(lengths: np.ndarray, masked: int, flat: bool = False, alone: bool = False) -> Shapes:
    """The one size for a batch that no limits were given for: each amount rounded up to two significant bits.

    `alone`: with a row for each sequence.
    """
    longest = round_up(int(lengths.max(initial=1)), EIGHT)
    if flat:
        rows, width = 1, round_up(_rounded(int(lengths.sum())), FLAT)
    else:
        rows, width = _rounded(len(lengths) if alone else len(pack(lengths, longest))), longest
    return Shapes((Sizes(rows, width, _rounded(len(lengths)), _rounded(masked) if masked else 0, longest),), flat)


def _rounded(value: int) -> int:
    """Up to 1, 2, 3, 4, 6, 8, 12, 16, … : less than half more."""
    power = 1 << max(0, value.bit_length() - 2)
    return round_up(value, power)


@dataclass(frozen=True)
class Static:
    """A batch in arrays whose shapes follow from `sizes` and the head alone."""

    sizes: Sizes
    sequences: int  # that are real
    token_slots: np.ndarray  # (T,) the slot of each of the batch's tokens
    whole: Mapping[str, np.ndarray]  # int64: what the encoder, the head and its loss read
    real: Mapping[str, np.ndarray]  # float32: likewise


def static(
    batch: Batch, kind: HeadKind, sizes: Sizes, counts: Mapping[str, int] | None = None, alone: bool = False
) -> Static:
    """`batch` in `sizes`, which must hold it. `counts`: what the losses are divided by; without, no labels are taken.
    `alone`: each sequence in a row of its own.

    Whole: input_ids, token_type_ids, position_ids, segments (N,) · first, lengths (B,) of each sequence ·
    bounds (K + 1,) of the stretches that attention is kept within · masked (M,) slots · the head's labels, with
    NO_LABEL where there is none; token_labels (N,). Real: counts (2,) sequences, and masked or labelled tokens ·
    for labels that are no classes (`IS_REAL`): labels (B,) or (B, C), and counted (B,) · a teacher's: counted (B,),
    teacher_logits (B, C), teacher_token_logits (N, C), teacher_masked_logits (M, V), teacher_states (N, D), for which
    counts is (3,): with the pairs, or of pre-training with the tokens.
    """
    lengths = sequence_lengths(batch)
    if alone:
        rows = [[number] for number in range(len(lengths))]
    else:
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
        more = [counts["pairs"]] if kind == "encoder" else []
        if kind == "pretraining" and "teacher_states" in batch:
            more = [counts["tokens"]]
        real["counts"] = np.array([counts["sequences"], max(1, positions), *more], np.float32)
        of_sequences = (name for name in LABELS[kind] if name in ("labels", "start_positions", "end_positions"))
        wanted = {name: batch[name] for name in of_sequences if name in batch}
        if kind in IS_REAL:
            real["labels"] = _filled(wanted.pop("labels"), sizes.sequences, 0.0).astype(np.float32)
            real["counted"] = (np.arange(sizes.sequences) < len(lengths)).astype(np.float32)
        whole |= {name: _filled(values, sizes.sequences, NO_LABEL) for name, values in wanted.items()}
        if kind == "tokens":
            whole["token_labels"] = np.full(sizes.slots, NO_LABEL, np.int64)
            whole["token_labels"][layout.token_slots] = batch["token_labels"]
        if kind == "pretraining":
            whole["masked_labels"] = _filled(batch["masked_labels"], sizes.masked, NO_LABEL)
        if any(name in batch for name in OF_TEACHER):
            real["counted"] = (np.arange(sizes.sequences) < len(lengths)).astype(np.float32)
            real |= _of_teacher(batch, sizes, layout.token_slots)
    return Static(sizes, len(lengths), layout.token_slots, whole, real)


def _of_teacher(batch: Batch, sizes: Sizes, token_slots: np.ndarray) -> dict[str, np.ndarray]:
    """A teacher's logits or states: of each slot, of each masked position, or of each sequence or example."""
    found = {}
    for name, values in ((name, batch[name]) for name in OF_TEACHER if name in batch):
        if name in OF_TOKENS:
            found[name] = np.zeros((sizes.slots, values.shape[1]), np.float32)
            found[name][token_slots] = values
        else:
            size = sizes.masked if name == "teacher_masked_logits" else sizes.sequences
            found[name] = _filled(values.astype(np.float32), size, 0.0)
    return found


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
