"""Which sequences of sharded, perhaps binned data make up update n, as `bertkit/data/sampler.py` has it for small data.

All sequences of a batch come from one bin, so every rank pads to the same few lengths. A batch is a pure function of
(the shards' sizes and bins, batch size, seed, window, n): no rank asks another, and a resume needs n alone.
Shards are read in a shuffled order, and a window of neighbouring ones is shuffled together, so that only the windows
that are read from need to be in memory.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import numpy as np

from bertkit.data.sampler import deal, micro_batch_count
from bertkit.engine.interface import Batch, Update, counts_of_states

BINS, SHARDS, ROWS = 0, 1, 2  # what a random order is of


@dataclass(frozen=True)
class ShardRange:
    """The sequences first, first + 1, … of one shard."""

    bin: int
    first: int
    sequences: int


class Sequences(Protocol):
    """Numbered sequences whose masked words may differ between epochs, as `dataset.PretrainingData` has them."""

    def at(self, epoch: int) -> Sequences: ...

    def lengths_of(self, examples: np.ndarray) -> np.ndarray: ...

    def masked_counts(self, examples: np.ndarray) -> np.ndarray: ...

    def batch(self, examples: np.ndarray) -> Batch: ...


@dataclass(frozen=True)
class BinnedSampler:
    """Global batches over shuffled epochs. A bin's last batch of an epoch is what is left, never dropped or doubled."""

    parts: tuple[ShardRange, ...]
    batch_size: int  # over all ranks
    seed: int
    window: int  # sequences of a bin that are shuffled together at the least; whole shards

    @property
    def examples(self) -> int:
        return sum(part.sequences for part in self.parts)

    @cached_property
    def bins(self) -> dict[int, int]:
        """Sequences in each bin."""
        sizes: dict[int, int] = {}
        for part in sorted(self.parts, key=lambda part: part.bin):
            sizes[part.bin] = sizes.get(part.bin, 0) + part.sequences
        return {bin: size for bin, size in sizes.items() if size}

    @cached_property
    def steps_per_epoch(self) -> int:
        return sum(math.ceil(size / self.batch_size) for size in self.bins.values())

    def epoch(self, step: int) -> int:
        """The epoch, from 0, that update `step`, from 1, belongs to."""
        return (step - 1) // self.steps_per_epoch

    def batch(self, step: int) -> np.ndarray:
        """The sequences' numbers of update `step`, from 1."""
        return next(self.batches(step, step))[1]

    def batches(self, first_step: int, last_step: int) -> Iterator[tuple[int, np.ndarray]]:
        """(step, sequences' numbers) for each update from `first_step` to `last_step`."""
        epoch, order, walks = -1, np.empty(0, np.int64), dict[int, _Walk]()
        for step in range(first_step, last_step + 1):
            now, place = divmod(step - 1, self.steps_per_epoch)
            if now != epoch:
                epoch, order = now, self._order_of_bins(now)
                walks = {bin: _Walk(self, now, bin) for bin in self.bins}
            bin = int(order[place])
            turn = int((order[:place] == bin).sum())
            yield step, walks[bin].read(turn * self.batch_size, (turn + 1) * self.batch_size)

    def amount(self, first_step: int, last_step: int) -> int:
        """Sequences of the updates `first_step` to `last_step`, all of one epoch, without making them."""
        if last_step < first_step:
            return 0
        place = (first_step - 1) % self.steps_per_epoch
        order = self._order_of_bins(self.epoch(first_step))
        total = 0
        for bin, size in self.bins.items():
            before = int((order[:place] == bin).sum()) * self.batch_size
            after = int((order[: place + last_step - first_step + 1] == bin).sum()) * self.batch_size
            total += min(size, after) - min(size, before)
        return total

    def _order_of_bins(self, epoch: int) -> np.ndarray:
        """(steps,) the bin of each update of an epoch."""
        turns = [np.full(math.ceil(size / self.batch_size), bin) for bin, size in self.bins.items()]
        return self.stream(epoch, BINS).permutation(np.concatenate(turns))

    def stream(self, *key: int) -> np.random.Generator:
        return np.random.Generator(np.random.PCG64(np.random.SeedSequence([self.seed, *(part + 1 for part in key)])))


class _Walk:
    """The order of one bin's sequences in one epoch, of which only the last few windows are kept."""

    def __init__(self, sampler: BinnedSampler, epoch: int, bin: int) -> None:
        parts = [part for part in sampler.parts if part.bin == bin and part.sequences]
        shuffled = [parts[place] for place in sampler.stream(epoch, SHARDS, bin).permutation(len(parts))]
        self.windows: list[list[ShardRange]] = [[]]
        for part in shuffled:
            if sum(each.sequences for each in self.windows[-1]) >= sampler.window:
                self.windows.append([])
            self.windows[-1].append(part)
        sizes = [sum(part.sequences for part in window) for window in self.windows]
        self.ends = np.cumsum(sizes)
        self.key = (epoch, ROWS, bin)
        self.sampler = sampler
        self.kept: dict[int, np.ndarray] = {}

    def read(self, start: int, stop: int) -> np.ndarray:
        """The sequences at places `start` to `stop` of the order, or what there is of them."""
        first, last = np.searchsorted(self.ends, [start, min(stop, self.ends[-1]) - 1], side="right")
        needed = range(int(first), int(last) + 1)
        self.kept = {n: self.kept[n] if n in self.kept else self._window(n) for n in needed}
        before = self.ends[first - 1] if first else 0
        return np.concatenate(list(self.kept.values()))[start - before : stop - before]

    def _window(self, number: int) -> np.ndarray:
        rows = [np.arange(part.first, part.first + part.sequences) for part in self.windows[number]]
        return self.sampler.stream(*self.key, number).permutation(np.concatenate(rows))


def updates(
    data: Sequences,
    sampler: BinnedSampler,
    first_step: int,
    last_step: int,
    rank: int = 0,
    ranks: int = 1,
    micro_batch_size: int = 0,
) -> Iterator[Update]:
    """This rank's share of each update, masked anew in each epoch where masking is dynamic.

    `micro_batch_size`: sequences at once on one rank; 0: all of its share. What the losses are divided by is counted
    over the global batch without making it.
    """
    share = math.ceil(sampler.batch_size / ranks)
    micro_batches = micro_batch_count(share, micro_batch_size)
    for step, examples in sampler.batches(first_step, last_step):
        now = data.at(sampler.epoch(step))
        lengths = now.lengths_of(examples)
        hands = deal(lengths, ranks, micro_batches)
        counts = {"sequences": len(examples), "masked": int(now.masked_counts(examples).sum())}
        counts |= counts_of_states(lengths)
        yield Update(step, tuple(now.batch(examples[places]) for places in hands[rank]), counts)
