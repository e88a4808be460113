"""What sequences have in common: the same text twice, text of eval in train, neighbours out of one document.

Texts are compared as the word pieces that stood there, masks taken off, by 64-bit hashes.

Legend: T tokens, N sequences, W windows of RUN tokens.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from bertkit.data.pretraining.formats.rows import Rows, bare

RUN = 16  # tokens of a window; that many in a row are hardly the same by chance
ONE_IN = 32  # windows are looked at where their hash says so, in every data the same ones
RARE = 2e-4  # a piece is rare that is at most this share of a shard's tokens
FACTOR = np.uint64(0x9E3779B97F4A7C15)


def whole(rows: Rows) -> np.ndarray:
    """(N,) a hash of each sequence."""
    ids = _spread(bare(rows).input_ids.astype(np.uint64))
    place = np.arange(len(ids)) - np.repeat(rows.cu_seqlens[:-1], rows.lengths)
    return np.add.reduceat(_spread(ids + place.astype(np.uint64)), rows.cu_seqlens[:-1])


def windows(rows: Rows) -> np.ndarray:
    """(W,) hashes of the chosen runs of RUN tokens, once for each time that one stands there."""
    ids = _spread(bare(rows).input_ids.astype(np.uint64))
    if len(ids) < RUN:
        return np.empty(0, np.uint64)
    total = np.zeros(len(ids) - RUN + 1, np.uint64)
    for place in range(RUN):
        total = total * FACTOR + ids[place : place + len(total)]
    owner = np.repeat(np.arange(len(rows)), rows.lengths)
    total = _spread(total)
    chosen: np.ndarray = total[(owner[: len(total)] == owner[RUN - 1 :]) & (total % np.uint64(ONE_IN) == 0)]
    return chosen


def _spread(bits: np.ndarray) -> np.ndarray:
    bits = (bits ^ (bits >> np.uint64(31))) * FACTOR
    spread: np.ndarray = bits ^ (bits >> np.uint64(29))
    return spread


@dataclass(frozen=True)
class Kinship:
    """Share of pairs of sequences that have a rare word piece in common, by how the pairs are chosen."""

    neighbours: float  # one behind the other in a shard
    near: float  # 10 apart
    random: float  # of one shard
    other_shards: float | None  # from two shards; None where there is one

    @property
    def ratio(self) -> float:
        """How much more neighbours have in common than pairs at random: 1 where a shard is well shuffled."""
        return max(self.neighbours, self.near) / self.random if self.random else 1.0

    @property
    def shard_ratio(self) -> float | None:
        """How much more pairs of one shard have in common than pairs of two: 1 where the shards are alike."""
        if self.other_shards is None:
            return None
        return self.random / self.other_shards if self.other_shards else 1.0


def rare_pieces(rows: Rows, most: int) -> np.ndarray:
    """Sorted keys sequence * 2^32 + piece of the rare pieces in the first `most` sequences."""
    ids = bare(rows).input_ids.astype(np.int64)[: rows.cu_seqlens[min(most, len(rows))]]
    owner = np.repeat(np.arange(len(rows)), rows.lengths)[: len(ids)]
    counts = np.bincount(ids, minlength=1)
    rare = counts[ids] <= max(2, RARE * len(ids))
    return np.unique(owner[rare] << 32 | ids[rare])


def kinship(keys: np.ndarray, count: int, seed: int, others: tuple[np.ndarray, int] | None) -> Kinship:
    """Of `count` sequences with these rare pieces, and of them with another shard's."""
    order = np.random.default_rng(seed).permutation(count)
    elsewhere = None
    if others:
        least = min(count, others[1])
        elsewhere = _share(_moved(keys, order), others[0], least)
    return Kinship(
        _share(keys[keys >> 32 >= 1] - (1 << 32), keys, count - 1),
        _share(keys[keys >> 32 >= 10] - (10 << 32), keys, count - 10),
        _share(_moved(keys, order), keys, count),
        elsewhere,
    )


def _moved(keys: np.ndarray, order: np.ndarray) -> np.ndarray:
    return np.sort(order[keys >> 32].astype(np.int64) << 32 | keys & 0xFFFFFFFF)


def _share(keys: np.ndarray, others: np.ndarray, count: int) -> float:
    """Share of `count` sequences that have a piece in both."""
    both = np.intersect1d(keys, others, assume_unique=True) >> 32
    return len(np.unique(both[both < count])) / max(count, 1)
