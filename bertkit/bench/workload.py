"""What a case computes on: sequences of real or built-in lengths with labels for their head.

Of a built-in distribution only the lengths are real: token ids and labels are random, which a BERT's speed does not
depend on.

Legend: T tokens, N sequences, B sequences of a batch, M masked positions.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from bertkit.bench.suite import Kind
from bertkit.data.features import Features
from bertkit.data.lengths import find_distribution, lengths, masked_counts
from bertkit.data.sampler import Sampler
from bertkit.data.tasks import Task
from bertkit.data.tasks.reading import Progress, read_split
from bertkit.engine.interface import Batch, Limits, sequence_lengths
from bertkit.model.config import Head, ModelConfig
from bertkit.model.loading import ModelSource
from bertkit.recipes.recipe import Recipe
from bertkit.records.collect import lengths as lengths_of
from bertkit.records.collect import number
from bertkit.training.batch_limits import of_answers, of_training
from bertkit.training.recipe_parts import cache_folder, sequence_shape
from bertkit.training.setup import checked

POOL = 10_000  # sequences drawn of a built-in distribution: as many as SQuAD's dev windows


@dataclass(frozen=True)
class Workload:
    """Sequences to compute on, and where their lengths come from."""

    head: Head
    features: Features
    source: str
    most_masked: int = 0

    def masked(self, lengths: np.ndarray) -> int:
        """How many positions are predicted in sequences of these lengths."""
        return int(masked_counts(lengths, self.most_masked).sum()) if self.most_masked else 0

    def limits(self, batch_size: int, micro: int, seed: int, ranks: int) -> Limits:
        """What batches of so many of these sequences hold on each rank; `micro`: computed at once, 0: all."""
        found = self.features
        masked = masked_counts(found.lengths, self.most_masked) if self.most_masked else None
        sampler = Sampler(len(found), batch_size * ranks, seed)
        return Limits((of_training(found, sampler, ranks, micro, masked),), (of_answers(found, batch_size, masked),))

    def describe(self) -> dict[str, Any]:
        """As a part of a record's data."""
        found = self.features.lengths
        return {
            "name": self.source,
            "file": None,
            "sha256": None,
            "features_sha256": self.features.digest(),
            "examples": None,
            "sequences": len(found),
            **lengths_of(found),
            "faults": [],
            "mean_masked": number(self.masked(found) / len(found)) if self.most_masked else None,
        }


@dataclass(frozen=True)
class MaskedFeatures(Features):
    """Sequences whose batches carry masked positions, evenly spread over each sequence."""

    most_masked: int = 0
    vocab_size: int = 1

    def batch(self, examples: np.ndarray) -> Batch:
        batch = super().batch(examples)
        found = sequence_lengths(batch).astype(np.int64)
        counts = masked_counts(found, self.most_masked)
        which = np.arange(int(counts.sum())) - np.repeat(np.cumsum(counts) - counts, counts)  # 0 … of each sequence
        places = 1 + which * np.repeat(found - 1, counts) // np.repeat(counts, counts)  # never [CLS]
        positions = np.repeat(batch["cu_seqlens"][:-1].astype(np.int64), counts) + places
        labels = (positions * 7919 + 1) % self.vocab_size
        return {**batch, "masked_positions": positions, "masked_labels": labels}


def built_in(name: str, model: ModelConfig, batch_size: int, longest: int, seed: int) -> Workload:
    """Sequences of a built-in distribution, for a model's vocabulary; whole batches of `batch_size`."""
    distribution = find_distribution(name)
    count = -(-POOL // batch_size) * batch_size
    drawn = lengths(name, count, seed, longest)
    stream = np.random.Generator(np.random.PCG64(np.random.SeedSequence([seed, count, 1])))
    tokens = int(drawn.sum())
    ids = stream.integers(0, model.vocab_size, tokens, dtype=np.int32)
    types = stream.integers(0, min(2, model.type_vocab_size), tokens, dtype=np.int32)
    starts = np.concatenate([[0], np.cumsum(drawn)])
    head = distribution.head
    if head.kind == "span":
        ends = stream.integers(0, drawn)
        features = Features(ids, types, starts, {"start_positions": ends // 2, "end_positions": ends})
    else:
        labels = {"labels": stream.integers(0, head.outputs, count)}
        features = Features(ids, types, starts, labels)
        if head.kind == "pretraining":
            most = distribution.most_masked
            features = MaskedFeatures(ids, types, starts, labels, most_masked=most, vocab_size=model.vocab_size)
    return Workload(head, features, distribution.title, distribution.most_masked)


def from_data(kind: Kind, task: Task, recipe: Recipe, source: ModelSource, progress: Progress) -> Workload:
    """The task's own train set (train) or first dev set (infer), as `bertkit train` reads it."""
    data = recipe.data
    split, rows = ("train", data.train_rows) if kind == "train" else ("dev", data.eval_rows)
    folder = Path(data.dir).expanduser()
    cache = cache_folder(data)
    file = data.train_file if kind == "train" else data.dev_file
    shape = sequence_shape(data, rows)
    parts = read_split(task, folder, split, source.vocabulary, shape, cache, progress, file)  # type: ignore[arg-type]
    checked(parts, source)
    return Workload(task.head, parts[0].features, f"{task.name} {split}: {parts[0].file.name}")
