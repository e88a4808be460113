"""What the micro-batches of pre-training hold: each phase's, and those of what it is scored on.

Shards are many and large, so batches are drawn of the lengths and masks in the smallest shard of each bin.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping

import numpy as np

from bertkit.data.pretraining.dataset import PretrainingData
from bertkit.data.pretraining.evaluation_set import EvaluationSet
from bertkit.data.sampler import deal
from bertkit.engine.interface import BatchLimits, DrawnBatch, Limits
from bertkit.training.batch_limits import DRAWS, TURNS, thinned
from bertkit.training.phases import Phase

SEQUENCES = 16_384  # of a shard that are looked at
Known = tuple[np.ndarray, np.ndarray]  # lengths and masked positions of some sequences


def of_phases(phases: Iterable[Phase], ranks: int, answers: int) -> Limits:
    """`answers`: sequences of a batch that is only scored."""
    found = [(of_training(phase, ranks), of_evaluation(phase.scored_on, answers)) for phase in phases]
    return Limits(tuple(training for training, _ in found), tuple(scored for _, scored in found))


def of_training(phase: Phase, ranks: int) -> BatchLimits:
    """Of a phase's micro-batches."""
    settings, sampler = phase.update_settings, phase.sampler
    known = {bin: _sample(phase.data, bin) for bin in sampler.bins}
    turns = max(TURNS, DRAWS // settings.accumulation)
    drawn: list[DrawnBatch] = []
    for number, (bin, size) in enumerate(itertools.islice(_batches(sampler.bins, sampler.batch_size), turns)):
        lengths, masked = known[bin]
        stream = np.random.Generator(np.random.PCG64(np.random.SeedSequence([sampler.seed, number])))
        some = stream.integers(0, len(lengths), size)
        for places in deal(lengths[some], ranks, settings.accumulation)[number % ranks]:
            drawn.append(DrawnBatch(lengths[some[places]], int(masked[some[places]].sum())))
    return BatchLimits(
        sequences=settings.at_once,
        longest=phase.data.longest,
        masked=settings.at_once * _most_masked(phase.data, known.values()),
        drawn=thinned(drawn),
    )


def of_evaluation(found: EvaluationSet, at_once: int) -> BatchLimits:
    """Of as many sequences as the set has, `at_once` of like length together."""
    known = [_sample(found.data, bin) for bin in found.data.bins]
    lengths, masked = (np.concatenate(parts) for parts in zip(*known, strict=True))
    order = np.argsort(-lengths, kind="stable")
    count = len(found.examples)
    places = order[np.linspace(0, len(order) - 1, count).round().astype(np.int64)]
    batches = [places[start : start + at_once] for start in range(0, count, at_once)]
    return BatchLimits(
        sequences=at_once,
        longest=found.data.longest,
        masked=at_once * _most_masked(found.data, known),
        drawn=thinned([DrawnBatch(lengths[some], int(masked[some].sum())) for some in batches]),
    )


def _batches(bins: Mapping[int, int], batch_size: int) -> Iterator[tuple[int, int]]:
    """(bin, sequences) without end: each bin's last and smaller batch once, whole ones in the bins' proportion."""
    rests = [(bin, size % batch_size) for bin, size in bins.items() if size % batch_size]
    whole = [(bin, size // batch_size) for bin, size in bins.items() if size >= batch_size]
    yield from rests
    if not whole:
        yield from itertools.cycle(rests)
        return
    ends = np.cumsum([count for _, count in whole])
    for number in itertools.count():
        place = (number + 0.5) * 0.6180339887 % 1.0 * ends[-1]  # the golden ratio's multiples spread evenly
        yield whole[int(np.searchsorted(ends, place, side="right"))][0], batch_size


def _sample(data: PretrainingData, bin: int) -> Known:
    """Of the smallest shard of a bin that has any."""
    shards = [(shard.sequences, at) for at, shard in enumerate(data.shards) if shard.file.bin == bin]
    sequences, at = min((pair for pair in shards if pair[0]), default=(0, 0))
    places = np.linspace(0, sequences - 1, min(sequences, SEQUENCES)).astype(np.int64)
    if not sequences:
        return places, places
    return data.lengths_of(data.starts[at] + places), data.masked_counts(data.starts[at] + places)


def _most_masked(data: PretrainingData, known: Iterable[Known]) -> int:
    """Masked positions of a sequence at the most; where no file tells, as many as were seen."""
    seen = max(int(masked.max(initial=0)) for _, masked in known)
    tells = data.dynamic or data.manifest or all(shard.most_masked for shard in data.shards)
    return max(seen, data.most_masked) if tells else seen
