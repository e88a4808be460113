"""Texts as Features, by the `tokenizers` library.

Legend: T tokens of all examples, N examples.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from bertkit.data.features import Features
from bertkit.model.long_texts import batches, shortened
from bertkit.model.tokenizer import tokenizer
from bertkit.model.vocabulary import Vocabulary


def encode(
    vocabulary: Vocabulary,
    first: Sequence[str],
    second: Sequence[str] | None,
    labels: dict[str, np.ndarray],
    seq_length: int,
    progress: Callable[[int], object] = lambda done: None,
    notes: Mapping[str, np.ndarray] | None = None,
) -> Features:
    """N texts, or pairs of texts, as Features of at most `seq_length` tokens; the longer text is cut first."""
    made = tokenizer(vocabulary)
    first, second = shortened(made, first, second, seq_length)
    made.enable_truncation(seq_length, strategy="longest_first")
    inputs: Sequence[Any] = first if second is None else list(zip(first, second, strict=True))
    ids: list[np.ndarray] = []
    types: list[np.ndarray] = []
    lengths = np.zeros(len(inputs), np.int64)
    for together in batches(inputs, 4096):  # in parts, so that progress can be shown
        for encoding in made.encode_batch(together):
            lengths[len(ids)] = len(encoding.ids)
            ids.append(np.array(encoding.ids, np.int32))
            types.append(np.array(encoding.type_ids, np.int32))
        progress(len(ids))
    return Features(_join(ids), _join(types), np.concatenate([[0], np.cumsum(lengths)]), labels, notes or {})


def _join(parts: list[np.ndarray]) -> np.ndarray:
    return np.concatenate(parts) if parts else np.empty(0, np.int32)
