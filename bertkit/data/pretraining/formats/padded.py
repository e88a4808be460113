"""Rows of one width, of one sequence or of several, as HDF5 and TFRecord hold them; and their sequences.

A row of several, as the packing scripts after Krell et al. 2021 (arXiv:2107.02027) make it: input_mask numbers the
sequences from 1, `positions` start anew with each, and next_sentence_* hold where each starts, its label, and 1 for
each that is there. A row of one is the same with K = 1.

Legend: N rows, S places of a row, P masked positions, K sequences of a row at the most, B sequences of all rows.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from bertkit.data.pretraining.formats.checked import LARGEST_ID, RowPlace, check_kind, whole_numbers
from bertkit.data.pretraining.formats.rows import NO_LABEL, Rows, offsets, smallest

ANY = (-(2**63), 2**64)
AT_ONCE = 1 << 25  # numbers of a slab's rows times sequences, so that padding does not fill the memory
IGNORED = (-1, -100)  # labels that losses leave out, besides 0 in some files
# in packed rows alone: Padded's field, and how files call it
PACKED = {"places": "positions", "begins": "next_sentence_positions", "there": "next_sentence_weights"}


@dataclass(frozen=True)
class Padded:
    """Rows; what only packed ones have is checked where a file has it."""

    input_ids: np.ndarray  # (N, S)
    input_mask: np.ndarray  # (N, S) 1 … K: a token of that sequence, 0: padding
    segment_ids: np.ndarray  # (N, S)
    positions: np.ndarray  # (N, P) in the row, padded with 0
    masked_ids: np.ndarray  # (N, P) padded with anything; below 0: nothing is predicted here
    labels: np.ndarray  # (N, K)
    weights: np.ndarray | None = None  # (N, P) over 0: the position is predicted; None: the file has none
    places: np.ndarray | None = None  # (N, S) each token's place in its sequence
    begins: np.ndarray | None = None  # (N, K) where each sequence starts
    there: np.ndarray | None = None  # (N, K) 1: the row has this sequence
    dense: bool = False  # masked_ids is (N, S): a label for each place, or what stands for none


@dataclass(frozen=True)
class _Cut:
    """Where the sequences of rows stand by `input_mask`, which `_faults` checks."""

    counts: np.ndarray  # (N, K) tokens
    starts: np.ndarray  # (N, K)
    second: np.ndarray  # (N, K) tokens of the second segment


def slab(width: int, several: int) -> int:
    """Rows decoded at a time."""
    return max(1, min(8192, AT_ONCE // (width * several)))


def unpad(padded: Padded, path: Path, first: int = 0) -> Rows:
    """The sequences, row by row; `first` is the number of the first row in its shard.

    Raises UserError naming file and row. What is predicted is told by weight, or where a file has none by position:
    no masked position is 0, where [CLS] stands. The id 0 is a target as any other.
    """
    place = RowPlace(path, first, "row" if padded.labels.shape[1] > 1 else "sequence")
    padded, hidden = _checked(padded, place)
    cut = _cut(padded)
    _refuse(_faults(padded, cut), place)
    rows, _ = np.nonzero(hidden)
    places = padded.positions[hidden]
    inside = places < padded.input_mask.shape[1]
    whose = np.zeros(len(places), np.int64)  # 0: behind the end
    whose[inside] = padded.input_mask[rows[inside], places[inside]]
    faults = _mask_faults(cut, rows, places, whose)
    _refuse(faults | {"a position is masked twice": _doubled(padded.positions, hidden)}, place)
    order = np.argsort(rows * padded.labels.shape[1] + whose, kind="stable")
    rows, whose, places = rows[order], whose[order] - 1, places[order]
    masked = np.bincount(rows * cut.counts.shape[1] + whose, minlength=cut.counts.size).reshape(cut.counts.shape)
    present = cut.counts > 0
    lengths, labels = cut.counts[present], padded.labels[present]
    return Rows(
        smallest(padded.input_ids[padded.input_mask > 0]),
        offsets(lengths),
        (lengths - cut.second[present]).astype(np.int32),
        np.where(labels < 0, NO_LABEL, labels).astype(np.int8),
        (places - cut.starts[rows, whose]).astype(np.int32),
        smallest(padded.masked_ids[hidden][order]),
        offsets(masked[present]),
    )


def _checked(padded: Padded, place: RowPlace) -> tuple[Padded, np.ndarray]:
    """The rows with numbers of the right types and ranges, and which masked positions (N, P) are predicted."""
    mask = whole_numbers(padded.input_mask, "input_mask", place, *ANY)
    labels = whole_numbers(padded.labels, "next_sentence_labels", place, *ANY)
    _refuse({"its next_sentence_labels are not 0, 1 or -1": _none_of(labels, (0, 1, *IGNORED))}, place)
    if padded.there is not None:
        check_kind(padded.there, PACKED["there"], place, "iubf")
    wholes: dict[str, Any] = {
        field: whole_numbers(values, name, place, *ANY)
        for field, name in {**PACKED, "positions": "masked_lm_positions", "masked_ids": "masked_lm_ids"}.items()
        if field != "there" and (values := getattr(padded, field)) is not None
    }
    padded = replace(padded, input_mask=mask, labels=labels, **wholes)
    hidden, told = _hidden(padded, place), padded.weights is not None
    real = mask > 0
    whole_numbers(
        padded.positions, "masked_lm_positions", place, 0 if told else -1, LARGEST_ID, hidden if told else None
    )
    whole_numbers(padded.masked_ids, "masked_lm_ids", place, 0, LARGEST_ID, hidden)
    ids = whole_numbers(padded.input_ids, "input_ids", place, 0, LARGEST_ID, real)
    segments = whole_numbers(padded.segment_ids, "segment_ids", place, 0, 1, real)
    return replace(padded, input_ids=ids, segment_ids=segments), hidden


def _hidden(padded: Padded, place: RowPlace) -> np.ndarray:
    """(N, P) bool: the position is predicted."""
    weights, masked = padded.weights, padded.masked_ids
    if weights is not None:
        check_kind(weights, "masked_lm_weights", place, "iubf")
        most = padded.labels.shape[1]  # packing scripts write the number of the sequence
        whole = (weights >= 0) & (weights <= most) & (weights == np.floor(weights))
        _refuse({f"its masked_lm_weights are not {'0 or 1' if most == 1 else f'0 to {most}'}": (~whole).any(1)}, place)
        return np.asarray(weights > 0)
    odd = np.asarray((masked < 0) & (masked != IGNORED[0]) & (masked != IGNORED[1]))
    _refuse({"its masked_lm_ids hold a number below 0 that is not -1 or -100": np.asarray(odd.any(1))}, place)
    if padded.dense:  # nothing is predicted at [CLS], so what stands there stands for nothing elsewhere too
        return np.asarray((masked > 0) | ((masked == 0) & (masked[:, :1] < 0) & (padded.input_mask > 0)))
    return np.asarray((padded.positions > 0) & (masked >= 0))


def _none_of(values: np.ndarray, known: tuple[int, ...]) -> np.ndarray:
    """(N,) bool: the row has another value."""
    return np.asarray((~np.isin(values, known)).any(1))


def _cut(padded: Padded) -> _Cut:
    mask, most = padded.input_mask, padded.labels.shape[1]
    own = [mask == number for number in range(1, most + 1)]
    counts = np.stack([places.sum(1) for places in own], 1)
    in_second = padded.segment_ids == 1
    second = np.stack([(places & in_second).sum(1) for places in own], 1)
    return _Cut(counts, np.cumsum(counts, 1) - counts, second)


def _faults(padded: Padded, cut: _Cut) -> dict[str, np.ndarray]:
    """What may be wrong with a row -> (N,) bool."""
    mask, several = padded.input_mask, padded.labels.shape[1] > 1
    real, present = mask > 0, cut.counts > 0
    tokens = real.sum(1)
    falls = (mask[:, 1:] < mask[:, :-1]) & real[:, 1:]
    odd = (cut.counts.sum(1) != tokens) | (mask < 0).any(1) | (present[:, 1:] > present[:, :-1]).any(1)
    runs = "the numbers of its sequences and then zeros" if several else "ones and then zeros"
    behind = "a second segment is not at its sequence's end" if several else "its second segment is not at its end"
    in_second = padded.segment_ids == 1
    turns_back = in_second[:, :-1] & ~in_second[:, 1:] & real[:, 1:] & (mask[:, :-1] == mask[:, 1:])
    faults = {
        f"its input_mask is not {runs}": odd
        | falls.any(1)
        | (real != (np.arange(mask.shape[1]) < tokens[:, None])).any(1),
        "it has no tokens": tokens == 0,
        behind: turns_back.any(1),
    }
    if padded.there is not None:
        faults["its next_sentence_weights are not one for each sequence"] = (padded.there != present).any(1)
    if padded.begins is not None:
        wrong = (padded.begins != cut.starts) & present
        faults["its next_sentence_positions are not where its sequences start"] = wrong.any(1)
    if padded.places is not None:
        own = (mask.clip(1, cut.counts.shape[1]) - 1).astype(np.int64)
        within = np.arange(mask.shape[1]) - np.take_along_axis(cut.starts, own, 1)
        wrong = (padded.places != within) & real
        faults["its positions do not start anew with each sequence"] = wrong.any(1)
    return faults


def _mask_faults(cut: _Cut, rows: np.ndarray, places: np.ndarray, whose: np.ndarray) -> dict[str, np.ndarray]:
    """Of each masked position (M,): its row, its place there, and the number of its sequence; 0: behind the end."""

    def of_rows(wrong: np.ndarray) -> np.ndarray:
        return np.bincount(rows[wrong], minlength=len(cut.counts)) > 0

    start = cut.starts[rows, (whose - 1).clip(0)]
    return {
        "a masked position lies behind its end": of_rows(whose == 0),
        "a sequence's first token is masked": of_rows((whose > 0) & (places == start)),
    }


def _doubled(positions: np.ndarray, hidden: np.ndarray) -> np.ndarray:
    """(N,) bool: a `hidden` position stands twice in the row."""
    ordered = np.sort(np.where(hidden, positions, 0), 1)
    twice: np.ndarray = ((ordered[:, 1:] == ordered[:, :-1]) & (ordered[:, 1:] > 0)).any(1)
    return twice


def _refuse(faults: dict[str, np.ndarray], place: RowPlace) -> None:
    for fault, where in faults.items():
        if where.any():
            raise place.fault(int(where.argmax()), fault)
