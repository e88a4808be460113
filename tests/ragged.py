"""Small ragged data for unit tests: features and batches whose every token tells its sequence and place."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from bertkit.data.features import Features
from bertkit.engine.interface import Batch


def features_of(lengths: Sequence[int], **labels: np.ndarray) -> Features:
    """Examples of these lengths; token j of example i is 1000 * (i + 1) + j, its type alternates, labels are i."""
    sizes = np.array(lengths, np.int64)
    place = np.concatenate([np.arange(size) for size in sizes]) if len(sizes) else np.empty(0, np.int64)
    ids = 1000 * (np.repeat(np.arange(len(sizes)), sizes) + 1) + place
    return Features(
        ids.astype(np.int32),
        ((ids + place // 2) % 2).astype(np.int32),
        np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64),
        labels or {"labels": np.arange(len(sizes), dtype=np.int64)},
    )


def batch_of(lengths: Sequence[int]) -> Batch:
    return features_of(lengths).batch(np.arange(len(lengths)))
