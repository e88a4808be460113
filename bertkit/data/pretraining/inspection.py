"""`bertkit data inspect`: what pre-training data is like, and what is wrong with it.

Legend: N sequences.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from bertkit.data.pretraining.dataset import PretrainingData
from bertkit.data.pretraining.formats.rows import NO_LABEL, Rows
from bertkit.data.pretraining.measures import Kinship, kinship, rare_pieces, whole, windows
from bertkit.model.vocabulary import Vocabulary

MOST = 2_000_000  # sequences looked at; of larger data whole shards, evenly chosen
NEIGHBOURS, ENOUGH = 20_000, 200  # sequences of a shard whose order is looked at, at the most and the least
COLUMNS = 16  # of the histogram
SHUFFLED, ALIKE = 1.25, 1.25  # over these ratios the order is not random
DOUBLED = 0.05  # a corpus made into sequences five times has about 2 %
Progress = Callable[[str, int, int], object]


@dataclass(frozen=True)
class Masks:
    """How what is masked is masked."""

    share: float  # of all tokens
    shown_mask: float  # of the masked: shown as [MASK]
    shown_same: float  # left as they were, by the choice or by chance
    shown_random: float
    most: int  # positions of a sequence
    special: int  # [CLS], [SEP], [MASK] or [PAD] that are predicted, which none should be


@dataclass(frozen=True)
class Sample:
    text: str  # masked pieces as [shown|what stood there]
    next_sentence: str


@dataclass(frozen=True)
class Inspection:
    """What was found. `complaints` are what somebody should look into."""

    format: str
    shards: int
    sequences: int
    looked_at: int
    tokens: int
    mean_length: float
    longest: int
    histogram: tuple[tuple[int, int], ...]  # (most tokens, sequences)
    bins: dict[int, int]  # bin -> sequences
    smallest_shard: int  # of a bin, so of the shards that are read together
    largest_shard: int
    random_next: float | None
    masks: Masks | None  # None: left to training, or no vocabulary
    doubled: float  # share of sequences that stand there more than once
    doubled_between: float  # in two shards or more
    text_repeats: float  # how often a run of text stands there
    kinship: Kinship | None
    eval_sequences: float | None  # share of eval's sequences that are in train
    eval_text: float | None  # share of eval's text that is in train
    samples: tuple[Sample, ...]
    complaints: tuple[str, ...]


@dataclass
class _Seen:
    lengths: list[np.ndarray]
    labels: list[np.ndarray]
    wholes: list[np.ndarray]
    windows: list[np.ndarray]
    kin: list[Kinship]
    masks: np.ndarray  # masked, as [MASK], same, special, tokens
    most: int = 0  # masked positions of a sequence


def inspect(
    data: PretrainingData,
    evaluation: PretrainingData | None,
    vocabulary: Vocabulary | None,
    samples: int,
    follow: Progress,
) -> Inspection:
    """Look at the data shard by shard. Raises UserError where one is damaged."""
    seen = _Seen([], [], [], [], [], np.zeros(5, np.int64))
    numbers = _chosen(data)
    before: dict[int, tuple[np.ndarray, int]] = {}  # a bin's last shard
    for turn, number in enumerate(numbers):
        rows = data.decoded.get(number)
        if not len(rows):
            continue
        bin = data.shards[number].file.bin
        before[bin] = _look(seen, rows, data, before.get(bin))
        follow("shards", turn + 1, len(numbers))
    lengths, labels = np.concatenate(seen.lengths), np.concatenate(seen.labels)
    repeats = np.concatenate(seen.windows)
    known = np.unique(repeats)
    held, held_text = _held_out(evaluation, np.concatenate(seen.wholes), known) if evaluation else (None, None)
    doubled, between = _doubled(seen.wholes)
    kin = _mean(seen.kin)
    sizes = [shard.sequences for shard in data.shards]
    uneven = [max(each) - min(each) for each in _by_bin(data).values()]
    found = Inspection(
        data.shards[0].file.format,
        len(data.shards),
        len(data),
        len(lengths),
        int(lengths.sum()),
        float(lengths.mean()),
        int(lengths.max()),
        _histogram(lengths, data.longest),
        {bin: sum(each) for bin, each in _by_bin(data).items()},
        min(sizes),
        max(sizes),
        None if (labels == NO_LABEL).all() else float((labels == 1).mean()),
        _masks(seen) if vocabulary and not data.dynamic else None,
        doubled,
        between,
        len(repeats) / max(1, len(known)),
        kin,
        held,
        held_text,
        _samples(data, vocabulary, samples) if vocabulary else (),
        (),
    )
    return _with_complaints(found, max(uneven))


def _chosen(data: PretrainingData) -> list[int]:
    """All shards, or as many evenly spread ones as hold MOST sequences."""
    count = len(data.shards)
    most = max(2, count * MOST // max(len(data), 1))
    return sorted({int(number) for number in np.linspace(0, count - 1, min(count, most))})


def _look(
    seen: _Seen, rows: Rows, data: PretrainingData, before: tuple[np.ndarray, int] | None
) -> tuple[np.ndarray, int]:
    seen.lengths.append(rows.lengths)
    seen.labels.append(rows.labels)
    seen.wholes.append(whole(rows))
    seen.windows.append(windows(rows))
    keys, count = rare_pieces(rows, NEIGHBOURS), min(NEIGHBOURS, len(rows))
    if count >= ENOUGH:
        seen.kin.append(kinship(keys, count, 0, before))
    if data.pieces and len(rows.positions):
        shown = rows.input_ids[np.repeat(rows.cu_seqlens[:-1], rows.masked_counts) + rows.positions]
        special = np.isin(rows.masked_labels, data.pieces.control).sum()
        same = (shown == rows.masked_labels).sum()
        seen.masks += [len(shown), (shown == data.pieces.mask).sum(), same, special, 0]
    seen.most = max(seen.most, int(rows.masked_counts.max(initial=0)))
    seen.masks[4] += len(rows.input_ids)
    return keys, count


def _by_bin(data: PretrainingData) -> dict[int, list[int]]:
    return {bin: [shard.sequences for shard in data.shards if shard.file.bin == bin] for bin in data.bins}


def _histogram(lengths: np.ndarray, longest: int) -> tuple[tuple[int, int], ...]:
    edges = np.unique(np.ceil(np.linspace(0, longest, COLUMNS + 1)).astype(int))
    counts, _ = np.histogram(lengths, edges + 1)
    return tuple(zip(edges[1:].tolist(), counts.tolist(), strict=True))


def _masks(seen: _Seen) -> Masks | None:
    masked, shown, same, special, tokens = (int(total) for total in seen.masks)
    if not masked:
        return None
    rest = masked - shown - same
    return Masks(masked / tokens, shown / masked, same / masked, rest / masked, seen.most, special)


def _doubled(shards: list[np.ndarray]) -> tuple[float, float]:
    every, counts = np.unique(np.concatenate(shards), return_counts=True)
    several, places = np.unique(np.concatenate([np.unique(shard) for shard in shards]), return_counts=True)
    between = np.isin(every, several[places > 1])
    total = counts.sum()
    return float(counts[counts > 1].sum() / total), float(counts[between].sum() / total)


def _held_out(evaluation: PretrainingData, wholes: np.ndarray, known: np.ndarray) -> tuple[float, float]:
    """Shares of eval's sequences and of its text that are in train."""
    found = [evaluation.decoded.get(number) for number in _chosen(evaluation)]
    sequences = np.concatenate([whole(rows) for rows in found if len(rows)])
    text = np.unique(np.concatenate([windows(rows) for rows in found]))
    return float(np.isin(sequences, wholes).mean()), float(np.isin(text, known).mean()) if len(text) else 0.0


def _mean(found: list[Kinship]) -> Kinship | None:
    if not found:
        return None
    others = [each.other_shards for each in found if each.other_shards is not None]
    return Kinship(
        float(np.mean([each.neighbours for each in found])),
        float(np.mean([each.near for each in found])),
        float(np.mean([each.random for each in found])),
        float(np.mean(others)) if others else None,
    )


def _samples(data: PretrainingData, vocabulary: Vocabulary, count: int) -> tuple[Sample, ...]:
    chosen = np.unique(np.linspace(0, len(data) - 1, count).astype(np.int64)) if count else np.empty(0, np.int64)
    return tuple(_decode(data, int(number), vocabulary) for number in chosen)


def _decode(data: PretrainingData, number: int, vocabulary: Vocabulary) -> Sample:
    batch = data.batch(np.array([number]))
    pieces = [vocabulary.pieces[id] for id in batch["input_ids"]]
    for place, label in zip(batch["masked_positions"], batch["masked_labels"], strict=True):
        goes_on = "##" if vocabulary.pieces[label].startswith("##") else ""
        shown, stood = pieces[place].strip("[]").removeprefix("##"), vocabulary.pieces[label].removeprefix("##")
        pieces[place] = f"{goes_on}[{shown}|{stood}]"
    label = {0: "next", 1: "random"}.get(int(batch["labels"][0]), "none")
    return Sample(" ".join(pieces).replace(" ##", ""), label)


def _with_complaints(found: Inspection, uneven: int) -> Inspection:
    kin, masks, said = found.kinship, found.masks, []
    if kin and kin.ratio > SHUFFLED:
        said.append(
            f"neighbours in a shard have {kin.ratio:.1f} times as much in common as pairs at random: it is not shuffled"
        )
    if kin and kin.shard_ratio and kin.shard_ratio > ALIKE:
        said.append(f"pairs of one shard have {kin.shard_ratio:.1f} times as much in common as pairs of two shards")
    if found.doubled > DOUBLED:
        said.append(f"{found.doubled:.1%} of the sequences stand there more than once")
    if masks and abs(masks.shown_mask - 0.8) > 0.05:
        said.append(f"{masks.shown_mask:.0%} of the masked pieces are shown as [MASK], not 80 %")
    if masks and masks.special:
        said.append(f"{masks.special:,} of the masked pieces are [CLS], [SEP], [MASK] or [PAD]")
    if uneven > 1:
        said.append(f"shards of one bin differ by up to {uneven:,} sequences; readers that need them even lose some")
    if found.eval_text and found.eval_text > 0.01:
        said.append(f"{found.eval_text:.1%} of the text of eval is in train too")
    return dataclasses.replace(found, complaints=tuple(said))
