"""Rows of one width, of one sequence or of several, as HDF5 and TFRecord hold them; and their sequences.

A row of several, as the packing scripts after Krell et al. 2021 (arXiv:2107.02027) make it: input_mask numbers the
sequences from 1, `positions` start anew with each, and next_sentence_* hold where each starts, its label, and 1 for
each that is there. A row of one is the same with K = 1.

Legend: N rows, S places of a row, P masked positions, K sequences of a row at the most, B sequences of all rows.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from bertkit.errors import UserError
from bertkit.pretraining.rows import MAKE_AGAIN, NO_LABEL, Rows, offsets, smallest

# in packed rows alone: Padded's field, and how files call it
PACKED = {"places": "positions", "begins": "next_sentence_positions", "there": "next_sentence_weights"}


@dataclass(frozen=True)
class Padded:
    """Rows; what only packed ones have is checked where a file has it."""

    input_ids: np.ndarray  # (N, S)
    input_mask: np.ndarray  # (N, S) 1 … K: a token of that sequence, 0: padding
    segment_ids: np.ndarray  # (N, S)
    positions: np.ndarray  # (N, P) in the row, padded with 0
    masked_ids: np.ndarray  # (N, P) padded with 0, -1 or -100
    labels: np.ndarray  # (N, K)
    places: np.ndarray | None = None  # (N, S) each token's place in its sequence
    begins: np.ndarray | None = None  # (N, K) where each sequence starts
    there: np.ndarray | None = None  # (N, K) 1: the row has this sequence


@dataclass(frozen=True)
class _Cut:
    """Where the sequences of rows stand by `input_mask`, which `_faults` checks."""

    counts: np.ndarray  # (N, K) tokens
    starts: np.ndarray  # (N, K)
    second: np.ndarray  # (N, K) tokens of the second segment


def unpad(padded: Padded, path: Path, first: int = 0) -> Rows:
    """The sequences, row by row; `first` is the number of the first row in its shard.

    Raises UserError naming file and row. No masked position is 0, where [CLS] stands, and no label [PAD], so 0 is
    padding in both.
    """
    cut = _cut(padded)
    _refuse(_faults(padded, cut), padded, path, first)
    hidden = (padded.positions > 0) & (padded.masked_ids > 0)
    rows, _ = np.nonzero(hidden)
    places = padded.positions[hidden]
    inside = places < padded.input_mask.shape[1]
    whose = np.zeros(len(places), np.int64)  # 0: behind the end
    whose[inside] = padded.input_mask[rows[inside], places[inside]]
    faults = _mask_faults(cut, rows, places, whose)
    _refuse(faults | {"a position is masked twice": _doubled(padded.positions, hidden)}, padded, path, first)
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
        "a token is negative": (padded.input_ids < 0).any(1),
    }
    if padded.there is not None:
        faults["its next_sentence_weights are not one for each sequence"] = ((padded.there > 0) != present).any(1)
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


def _refuse(faults: dict[str, np.ndarray], padded: Padded, path: Path, first: int) -> None:
    row = "row" if padded.labels.shape[1] > 1 else "sequence"
    for fault, where in faults.items():
        if where.any():
            raise UserError(f"{path}: {row} {first + int(where.argmax())}: {fault}", MAKE_AGAIN)
