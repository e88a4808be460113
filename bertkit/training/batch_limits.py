"""What the micro-batches of a run hold at the most, kind by kind, and some of them as they occur.

The draws are the same on every rank and after a resume, so all sessions of a run plan the same sizes by them.

Legend: N examples.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import numpy as np

from bertkit.data.features import Features
from bertkit.data.sampler import Sampler, by_length, deal
from bertkit.engine.interface import BatchLimits, DrawnBatch
from bertkit.training.recipe_parts import limit_sequences

DRAWS = 256  # micro-batches that are drawn of each kind
TURNS = 32  # updates that they come from, at least


def of_training(
    features: Features, sampler: Sampler, ranks: int, micro: int, masked: np.ndarray | None = None
) -> BatchLimits:
    """Of training batches. `micro`: sequences at once on a rank, 0: all of its share.

    `masked` (N,): masked positions of each example; None: the head predicts none.
    """
    share = -(-sampler.batch_size // ranks)
    at_once = limit_sequences(share, micro)
    return _of_examples(features, at_once, _dealt(features.sizes, sampler, ranks, -(-share // at_once)), masked)


def _dealt(sizes: np.ndarray, sampler: Sampler, ranks: int, micro_batches: int) -> Iterator[np.ndarray]:
    """The examples of micro-batches: of the first updates, and of an epoch's last, which may be smaller."""
    if not sampler.examples:
        return
    turns = max(TURNS, DRAWS // micro_batches)
    batches = [examples for _, examples in sampler.batches(1, turns)]
    if sampler.steps_per_epoch > turns:
        batches[-1] = sampler.batch(sampler.steps_per_epoch)
    for number, examples in enumerate(batches):
        for places in deal(sizes[examples], ranks, micro_batches)[number % ranks]:
            yield examples[places]


def of_answers(features: Features, at_once: int, masked: np.ndarray | None = None) -> BatchLimits:
    """Of examples that are only predicted, `at_once` at a time, those of like length together."""
    return _of_examples(features, at_once, by_length(features.sizes, at_once), masked)


def _of_examples(
    features: Features, at_once: int, batches: Iterable[np.ndarray], masked: np.ndarray | None
) -> BatchLimits:
    counts = np.zeros(len(features), np.int64) if masked is None else masked
    lengths = features.lengths.reshape(len(features), features.each)
    drawn = [DrawnBatch(lengths[some].reshape(-1), int(counts[some].sum())) for some in batches]
    return BatchLimits(
        sequences=at_once * features.each,
        longest=int(lengths.max(initial=1)),
        masked=largest(counts, at_once),
        tokens=largest(features.sizes, at_once),
        drawn=thinned(drawn),
    )


def largest(amounts: np.ndarray, count: int) -> int:
    """The sum of the `count` largest."""
    return int(np.sort(amounts)[-count:].sum())


def thinned(drawn: Sequence[DrawnBatch]) -> tuple[DrawnBatch, ...]:
    """Those with sequences, DRAWS of them at the most."""
    some = [batch for batch in drawn if len(batch.lengths)]
    if len(some) <= DRAWS:
        return tuple(some)
    stream = np.random.Generator(np.random.PCG64(np.random.SeedSequence([len(some)])))
    return tuple(some[place] for place in np.sort(stream.permutation(len(some))[:DRAWS]))
