"""What pre-training is scored on: a set of its own, a part of the data set apart, or the data that it learns from.

Legend: N sequences of the set, B of a batch, M masked positions of them.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal

import numpy as np

from bertkit.data.pretraining.dataset import PretrainingData
from bertkit.data.pretraining.sampler import ShardRange
from bertkit.data.sampler import by_length
from bertkit.engine.interface import Batch
from bertkit.errors import UserError

MOST = 10_000  # sequences set apart, as MLPerf's evaluation set has
SHARDS = 8  # of each bin that give some, so that few are decoded
HELD_OUT = 7  # makes the draw another than the sampler's with the same seed
MASKS = 1 << 31  # the epoch whose masks dynamic data is scored with; no training comes so far
KEPT = 20_000  # sequences whose batches are kept from one evaluation to the next


@dataclass(frozen=True)
class EvaluationSet:
    """N sequences, each scored once."""

    data: PretrainingData
    examples: np.ndarray  # (N,) their numbers
    kind: Literal["own", "set apart", "training"]
    place: Path

    def batches(self, size: int, rank: int, ranks: int) -> Iterator[Batch]:
        """This rank's, each of like lengths; every sequence once over all ranks."""
        if len(self.examples) > KEPT * ranks:
            yield from self._made(size, rank, ranks)
            return
        key = (size, rank, ranks)
        if key not in self._kept:
            self._kept[key] = list(self._made(size, rank, ranks))
        yield from self._kept[key]

    def _made(self, size: int, rank: int, ranks: int) -> Iterator[Batch]:
        data = self.data.at(MASKS)
        for places in by_length(self.lengths, size, rank, ranks):
            yield data.batch(self.examples[places])

    @cached_property
    def lengths(self) -> np.ndarray:
        """(N,) tokens of each."""
        return self.data.lengths_of(self.examples)

    @cached_property
    def _kept(self) -> dict[tuple[int, int, int], list[Batch]]:
        return {}


def hold_out(
    parts: Sequence[ShardRange], share: float, seed: int, most: int = MOST
) -> tuple[tuple[ShardRange, ...], np.ndarray]:
    """(what is left to learn from, the numbers of the sequences set apart).

    Of each bin in proportion, from the ends of a few shards drawn by the seed, never more than half a shard.
    """
    left = list(parts)
    total = sum(part.sequences for part in parts)
    wanted = min(most, share * total)
    stream = np.random.Generator(np.random.PCG64(np.random.SeedSequence([seed, HELD_OUT])))
    apart = [np.empty(0, np.int64)]
    for bin in sorted({part.bin for part in parts}):
        mine = [at for at, part in enumerate(parts) if part.bin == bin and part.sequences > 1]
        need = round(wanted * sum(parts[at].sequences for at in mine) / total) if total else 0
        chosen = stream.permutation(mine)[:SHARDS].tolist()
        for turn, at in enumerate(chosen):
            take = min(-(-need // (len(chosen) - turn)), left[at].sequences // 2)
            need -= take
            end = left[at].first + left[at].sequences
            apart.append(np.arange(end - take, end))
            left[at] = dataclasses.replace(left[at], sequences=left[at].sequences - take)
    return tuple(left), np.concatenate(apart)


def first_rows(parts: Sequence[ShardRange], rows: int) -> tuple[ShardRange, ...]:
    """The first so many sequences; 0: all."""
    if not rows:
        return tuple(parts)
    kept = []
    for part in parts:
        kept.append(dataclasses.replace(part, sequences=min(part.sequences, rows)))
        rows -= kept[-1].sequences
    return tuple(kept)


def set_apart(
    data: PretrainingData, parts: Sequence[ShardRange], place: Path, share: float, seed: int
) -> tuple[tuple[ShardRange, ...], EvaluationSet]:
    """Where there is no evaluation set. Raises UserError where the share is less than one sequence."""
    if share == 0:
        numbers = [np.arange(part.first, part.first + part.sequences) for part in parts]
        return tuple(parts), EvaluationSet(data, np.concatenate(numbers)[:MOST], "training", place)
    left, apart = hold_out(parts, share, seed)
    if not len(apart):
        raise UserError(
            f"{place}: there is no evaluation set, and {share:.3g} of {len(data)} sequences is not one to set apart",
            "name a set with --set data.eval_dir=DIR, or a larger share with --set data.held_out=0.1",
        )
    return left, EvaluationSet(data, apart, "set apart", place)
