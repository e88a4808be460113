"""The sequences of one shard, decoded: what every format is turned into.

Legend: T tokens of all sequences, N sequences, M masked positions.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

NO_LABEL = -100  # of data made without next-sentence prediction; losses leave it out
MAKE_AGAIN = "copy or make the shard again"


@dataclass(frozen=True)
class Rows:
    """N sequences without padding; what is masked is masked already."""

    input_ids: np.ndarray  # (T,) uint16, or int32 where the vocabulary is larger
    cu_seqlens: np.ndarray  # (N+1,) int64
    second: np.ndarray  # (N,) int32: where each sequence's second segment starts; its length where there is none
    labels: np.ndarray  # (N,) int8: 1 the second segment is a random one, 0 it follows the first; NO_LABEL
    positions: np.ndarray  # (M,) int32 within the sequence
    masked_labels: np.ndarray  # (M,) as input_ids: what stood there
    cu_masked: np.ndarray  # (N+1,) int64; all 0 where nothing is masked yet

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def lengths(self) -> np.ndarray:
        """(N,) tokens of each sequence."""
        return np.diff(self.cu_seqlens)

    @property
    def masked_counts(self) -> np.ndarray:
        """(N,) masked positions of each sequence."""
        return np.diff(self.cu_masked)


def offsets(counts: np.ndarray) -> np.ndarray:
    """(N,) counts -> (N+1,) int64 starts."""
    return np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)


def slots(starts: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """The indices of runs that begin at `starts` and have `counts` entries, one run after the other."""
    ends = offsets(counts)
    run: np.ndarray = np.repeat(starts - ends[:-1], counts) + np.arange(ends[-1])
    return run


def smallest(ids: np.ndarray) -> np.ndarray:
    """`ids` as uint16 where they fit, else int32."""
    return ids.astype(np.uint16 if ids.max(initial=0) < 1 << 16 else np.int32)


def join(parts: Sequence[Rows]) -> Rows:
    """The sequences of several parts, one after the other."""

    def joined(name: str) -> np.ndarray:
        return np.concatenate([getattr(part, name) for part in parts])

    return Rows(
        joined("input_ids"),
        offsets(np.concatenate([part.lengths for part in parts])),
        joined("second"),
        joined("labels"),
        joined("positions"),
        joined("masked_labels"),
        offsets(np.concatenate([part.masked_counts for part in parts])),
    )


def take(rows: Rows, which: np.ndarray) -> Rows:
    """The sequences of these numbers, in this order."""
    lengths, counts = rows.lengths[which], rows.masked_counts[which]
    tokens, masks = slots(rows.cu_seqlens[which], lengths), slots(rows.cu_masked[which], counts)
    return Rows(
        rows.input_ids[tokens],
        offsets(lengths),
        rows.second[which],
        rows.labels[which],
        rows.positions[masks],
        rows.masked_labels[masks],
        offsets(counts),
    )


def bare(rows: Rows) -> Rows:
    """Sequences with the masks taken off that they were made with."""
    if not len(rows.positions):
        return rows
    ids = rows.input_ids.copy()
    ids[np.repeat(rows.cu_seqlens[:-1], rows.masked_counts) + rows.positions] = rows.masked_labels
    return dataclasses.replace(rows, input_ids=ids)
