"""Which examples make up update n, and which rank and micro-batch computes which of them.

The global batch of update n is a pure function of (number of examples, batch size, seed, n): the same on every
backend and for any number of ranks or micro-batches. Dealing it out changes who computes, not the result.

Legend: N examples, B sequences of the global batch, R ranks, K micro-batches a rank.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from bertkit.data.features import Features
from bertkit.engine.interface import Update, counts_of_states, label_counts
from bertkit.errors import UserError
from bertkit.model.config import HeadKind

PARTIAL_BATCHES = "an epoch's last batch is what is left: neither dropped, filled up nor doubled"


@dataclass(frozen=True)
class Sampler:
    """Global batches over shuffled epochs. The last batch of an epoch is what is left, never dropped or doubled."""

    examples: int
    batch_size: int  # B: over all ranks
    seed: int
    first: int = 0  # with `stride`: only the sequences first, first + stride, … of the data are trained on
    stride: int = 1

    @property
    def steps_per_epoch(self) -> int:
        return math.ceil(self.examples / self.batch_size)

    def order(self, epoch: int) -> np.ndarray:
        """(N,) the examples in this epoch's order; epochs count from 0."""
        key = np.random.SeedSequence([self.seed, epoch])
        order = np.random.Generator(np.random.PCG64(key)).permutation(self.examples)
        return self.first + self.stride * order

    def batch(self, step: int) -> np.ndarray:
        """The example numbers of update `step`, from 1."""
        epoch, place = divmod(step - 1, self.steps_per_epoch)
        return self._slice(self.order(epoch), place)

    def batches(self, first_step: int, last_step: int) -> Iterator[tuple[int, np.ndarray]]:
        """(step, example numbers) for each update from `first_step` to `last_step`; each epoch is shuffled once."""
        order, shuffled = np.empty(0, np.int64), -1
        for step in range(first_step, last_step + 1):
            epoch, place = divmod(step - 1, self.steps_per_epoch)
            if epoch != shuffled:
                order, shuffled = self.order(epoch), epoch
            yield step, self._slice(order, place)

    def _slice(self, order: np.ndarray, place: int) -> np.ndarray:
        return order[place * self.batch_size : (place + 1) * self.batch_size]


def sharded(sequences: int, shard: str, batch_size: int, seed: int) -> Sampler:
    """The sampler of the share "k/n" of so many sequences; of all where `shard` is empty.

    Raises UserError where there is no such share.
    """
    number, _, shares = (shard or "0/1").partition("/")
    first, stride = int(number), int(shares)
    if first >= min(stride, sequences):
        raise UserError(f"there is no share {shard} of {sequences} sequences", "shares of n count from 0/n to (n-1)/n")
    return Sampler(len(range(first, sequences, stride)), batch_size, seed, first, stride)


def deal(lengths: np.ndarray, ranks: int, micro_batches: int) -> list[list[np.ndarray]]:
    """Places in the global batch for each rank and micro-batch: R lists of K index arrays, sorted by length.

    Sequences are dealt longest first, to and fro over the ranks (0 1 2 2 1 0 …), so that their tokens balance;
    each rank then cuts its own into K runs of like length, so that little is padded.
    """
    order = np.argsort(-lengths, kind="stable")
    turn = np.arange(len(order)) % (2 * ranks)
    owner = np.where(turn < ranks, turn, 2 * ranks - 1 - turn)
    return [np.array_split(order[owner == rank], micro_batches) for rank in range(ranks)]


def micro_batch_count(share: int, micro_batch_size: int) -> int:
    """Into how many micro-batches a rank's share of the batch is cut; `micro_batch_size` 0: one."""
    return math.ceil(share / micro_batch_size) if micro_batch_size else 1


def updates(
    features: Features,
    sampler: Sampler,
    kind: HeadKind,
    first_step: int,
    last_step: int,
    rank: int = 0,
    ranks: int = 1,
    micro_batch_size: int = 0,
) -> Iterator[Update]:
    """This rank's share of each update. `micro_batch_size`: sequences at once on one rank; 0: all of its share."""
    share = math.ceil(sampler.batch_size / ranks)
    micro_batches = micro_batch_count(share, micro_batch_size)
    for step, examples in sampler.batches(first_step, last_step):
        hands = deal(features.sizes[examples], ranks, micro_batches)
        of_positions = kind in ("pretraining", "tokens")  # whose number only the batch tells
        counts = label_counts(kind, [features.batch(examples)]) if of_positions else {"sequences": len(examples)}
        if kind == "encoder":
            counts |= counts_of_states(features.lengths[features.sequences(examples)])
        mine = tuple(features.batch(examples[places]) for places in hands[rank])
        yield Update(step, mine, counts)


def by_length(lengths: np.ndarray, batch_size: int, rank: int = 0, ranks: int = 1) -> Iterator[np.ndarray]:
    """Example numbers in batches of like length, longest first, for evaluation: each example once over all ranks.

    Longest first, so that a batch that does not fit into memory fails at once.
    """
    order = np.argsort(-lengths, kind="stable")
    batches = [order[start : start + batch_size] for start in range(0, len(order), batch_size)]
    yield from batches[rank::ranks]
