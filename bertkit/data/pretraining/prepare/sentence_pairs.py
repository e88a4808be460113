"""Documents -> sequences, as google-research/bert's create_pretraining_data.py makes them.

Sentences fill a chunk up to the target length, which is now and then a random shorter one; the chunk is divided at a
random sentence; half of the time, and where it is a single sentence, the second segment is taken from another
document instead and the sentences that it stood for are put back. What is too long is cut, at random from the front
or the back of the longer segment. Segments are runs of the flat tokens, so nothing is copied until the end.

Legend: T tokens of a block of documents, N sequences.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from bertkit.data.pretraining.formats.rows import NO_LABEL, Rows, offsets, slots, smallest

TRIES = 10  # for another document than this one
Run = tuple[int, int, int, int, int]  # first segment's start and end in the tokens, the second's, label


@dataclass(frozen=True)
class PairShape:
    """What the sequences are to be."""

    seq_length: int = 128
    next_sentence: bool = True
    short: float = 0.1  # share of documents whose sequences are filled to a random shorter length

    @property
    def room(self) -> int:
        """Tokens beside [CLS] and [SEP]."""
        return self.seq_length - (3 if self.next_sentence else 2)


@dataclass(frozen=True)
class Block:
    """The documents that one another's random next sentences come from."""

    tokens: np.ndarray  # (T,)
    sentences: Sequence[int]  # where each sentence starts in the tokens, and T
    documents: Sequence[int]  # where each document starts in the sentences, and their number
    own: int  # documents that make sequences; those behind them are only drawn from


def sequences(block: Block, shape: PairShape, cls: int, sep: int, key: str) -> Rows:
    """The block's documents once over, unmasked. The same for the same key."""
    stream = random.Random(key)  # noqa: S311 - a shuffle; a text as seed gives the same on every machine
    make = _pairs if shape.next_sentence else _singles
    made = [run for number in range(block.own) for run in make(block, number, shape, stream)]
    runs = np.array(made, np.int64).reshape(-1, 5)
    return _rows(block.tokens, _cut(runs, shape.room, stream.getrandbits(64)), cls, sep)


def _target(shape: PairShape, stream: random.Random) -> int:
    return stream.randint(2, shape.room) if stream.random() < shape.short else shape.room


def _pairs(block: Block, number: int, shape: PairShape, stream: random.Random) -> Iterator[Run]:
    at, target = block.sentences, _target(shape, stream)
    place, end = block.documents[number : number + 2]
    start = place  # of the chunk
    while place < end:
        if place < end - 1 and at[place + 1] - at[start] < target:
            place += 1
            continue
        count = place + 1 - start
        middle = start + (stream.randint(1, count - 1) if count > 1 else 1)
        other = _other(block, number, stream) if count == 1 or stream.random() < 0.5 else None
        if other is not None:
            first = stream.randrange(*block.documents[other : other + 2])
            last, wanted = first + 1, target - (at[middle] - at[start])
            while last < block.documents[other + 1] and at[last] - at[first] < wanted:
                last += 1
            yield at[start], at[middle], at[first], at[last], 1
            place = middle  # what was not used is used later
        elif count > 1:
            yield at[start], at[middle], at[middle], at[place + 1], 0
            place += 1
        else:
            return  # one sentence, and no other document: there is no second segment
        start = place


def _other(block: Block, number: int, stream: random.Random) -> int | None:
    """A random document other than this one; None where ten draws found none."""
    many = len(block.documents) - 1
    drawn = (stream.randrange(many) for _ in range(TRIES))
    return next((other for other in drawn if other != number), None)


def _singles(block: Block, number: int, shape: PairShape, stream: random.Random) -> Iterator[Run]:
    """One segment of whole sentences, as many as fit; a sentence that is too long is divided."""
    at, target = block.sentences, _target(shape, stream)
    start, end = block.documents[number : number + 2]
    place = start
    while place < end:
        if place < end - 1 and at[place + 2] - at[start] <= target:
            place += 1
            continue
        for first in range(at[start], at[place + 1], shape.room):
            last = min(first + shape.room, at[place + 1])
            yield first, last, last, last, NO_LABEL
        place += 1
        start = place


def _cut(runs: np.ndarray, room: int, seed: int) -> np.ndarray:
    """Runs that fit: token by token off the longer segment, the second where they are as long."""
    first, second = runs[:, 1] - runs[:, 0], runs[:, 3] - runs[:, 2]
    keep_first = np.minimum(first, np.maximum(room - room // 2, room - second))
    keep_second = np.minimum(second, np.maximum(room // 2, room - first))
    stream = np.random.Generator(np.random.PCG64(seed))
    cut = runs.copy()
    for column, off in ((0, first - keep_first), (2, second - keep_second)):
        front = stream.binomial(off, 0.5)
        cut[:, column] += front
        cut[:, column + 1] -= off - front
    return cut


def _rows(tokens: np.ndarray, runs: np.ndarray, cls: int, sep: int) -> Rows:
    first, second, labels = runs[:, 1] - runs[:, 0], runs[:, 3] - runs[:, 2], runs[:, 4]
    paired = labels != NO_LABEL
    lengths = first + second + 2 + paired
    starts = offsets(lengths)
    ids = np.full(starts[-1], sep, np.int64)
    ids[starts[:-1]] = cls
    ids[slots(starts[:-1] + 1, first)] = tokens[slots(runs[:, 0], first)]
    ids[slots(starts[:-1] + first + 2, second)] = tokens[slots(runs[:, 2], second)]
    none = np.empty(0, np.int32)
    nothing = np.zeros(len(runs) + 1, np.int64)
    start = np.where(paired, first + 2, lengths).astype(np.int32)
    return Rows(smallest(ids), starts, start, labels.astype(np.int8), none, none, nothing)
