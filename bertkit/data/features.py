"""Features: encoded examples in flat arrays, and how they are kept on disk under a key of all that shaped them.

Legend: T tokens of all examples, N examples, K sequences of an example.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from bertkit.errors import UserError
from bertkit.files.disk import read_sealed_arrays, sweep, write_sealed_arrays
from bertkit.model.config import OF_TEACHER, OF_TOKENS

FORMAT = 3  # of the cache file; part of its key
COMPACT = ("input_ids", "token_type_ids")
LABEL, NOTE = "label.", "note."  # prefixes of names in the cache file
logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Features:
    """N encoded examples without padding: a sequence each, or K that stand together."""

    input_ids: np.ndarray  # (T,) int32
    token_type_ids: np.ndarray  # (T,) int32
    cu_seqlens: np.ndarray  # (N * K + 1,) int64: sequence i is tokens cu_seqlens[i] to cu_seqlens[i+1]
    labels: Mapping[str, np.ndarray]  # each (N, …), those of `OF_TOKENS` (T,); empty where the data has no labels
    notes: Mapping[str, np.ndarray] = field(default_factory=dict)  # what answering needs and no model sees
    each: int = 1  # K: sequences of an example, as many as there are choices

    def __len__(self) -> int:
        return (len(self.cu_seqlens) - 1) // self.each

    @property
    def lengths(self) -> np.ndarray:
        """(N * K,) tokens of each sequence."""
        return np.diff(self.cu_seqlens)

    @property
    def sizes(self) -> np.ndarray:
        """(N,) tokens of each example."""
        return np.diff(self.cu_seqlens[:: self.each])

    def sequences(self, examples: np.ndarray) -> np.ndarray:
        """The numbers of these examples' sequences, K of each."""
        return np.asarray((examples[:, None] * self.each + np.arange(self.each)).reshape(-1))

    def batch(self, examples: np.ndarray) -> Mapping[str, np.ndarray]:
        """The ragged batch of these examples, as engines take it, in this order; `example_ids` says which they are."""
        sequences = self.sequences(examples)
        lengths = self.lengths[sequences]
        cu_seqlens = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)
        tokens = np.repeat(self.cu_seqlens[:-1][sequences] - cu_seqlens[:-1], lengths) + np.arange(cu_seqlens[-1])
        return {
            "input_ids": self.input_ids[tokens],
            "token_type_ids": self.token_type_ids[tokens],
            "cu_seqlens": cu_seqlens,
            "example_ids": examples.astype(np.int64),
            **{name: values[tokens if name in OF_TOKENS else examples] for name, values in self.labels.items()},
        }

    def digest(self) -> str:
        """SHA-256 over all that a model sees: the same data gives the same digest on every machine. Left out is what a
        teacher gave, which follows from the rest."""
        total = hashlib.sha256()
        aside = {f"{LABEL}{name}" for name in OF_TEACHER}
        seen = {name: array for name, array in _flat(self).items() if not name.startswith(NOTE) and name not in aside}
        for name, array in sorted(seen.items()):
            total.update(f"{name} {array.dtype.str} {array.shape}".encode())
            total.update(np.ascontiguousarray(array).data)
        return total.hexdigest()


def joined(parts: Sequence[Features]) -> Features:
    """The examples of all parts, one part after another, with the labels of the first; without notes."""
    first = parts[0]
    starts = np.cumsum([0, *(len(part.input_ids) for part in parts)])
    return Features(
        np.concatenate([part.input_ids for part in parts]),
        np.concatenate([part.token_type_ids for part in parts]),
        np.concatenate([[0], *(part.cu_seqlens[1:] + start for part, start in zip(parts, starts, strict=False))]),
        {name: np.concatenate([part.labels[name] for part in parts]) for name in first.labels},
        each=first.each,
    )


def cache_key(**shaped_by: str | int | bool) -> str:
    """A key of everything that shaped the features; every part goes in by name."""
    text = json.dumps({"format": FORMAT, **shaped_by}, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:24]


def cached(folder: Path | None, name: str, key: str, build: Callable[[], Features]) -> Features:
    """The features kept in `folder` under `key`, or those that `build` makes, which are then kept.

    A damaged file is built anew with a warning; a folder that cannot be written costs a warning, not the run.
    """
    if folder is None:
        return build()
    path = folder / f"{name}-{key}.safetensors"
    sweep(folder)
    if os.path.exists(path):  # Path.exists raises where the folder is closed to us
        try:
            return _unflat(kept_arrays(path, key))
        except (UserError, KeyError) as error:
            logger.warning("features in %s are damaged and rebuilt: %s", path, error)
    features = build()
    keep_arrays(path, key, _compact(_flat(features)), "features")
    return features


def kept_arrays(path: Path, key: str) -> dict[str, np.ndarray]:
    """Those of the file. Raises UserError where it is damaged, or of another key."""
    arrays, said = read_sealed_arrays(path)
    if said.get("key") != key:
        raise UserError(f"{path}: is of another key", "it was renamed")
    return arrays


def keep_arrays(path: Path, key: str, arrays: Mapping[str, np.ndarray], what: str) -> None:
    """For `kept_arrays`; a folder that cannot be written costs a warning."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_sealed_arrays(path, arrays, {"key": key})
    except (UserError, OSError) as error:
        logger.warning("%s are not kept for the next run: %s", what, error)


def _flat(features: Features) -> dict[str, np.ndarray]:
    return {
        "input_ids": features.input_ids,
        "token_type_ids": features.token_type_ids,
        "cu_seqlens": features.cu_seqlens,
        **({"each": np.array(features.each)} if features.each > 1 else {}),
        **{f"{LABEL}{name}": values for name, values in features.labels.items()},
        **{f"{NOTE}{name}": values for name, values in features.notes.items()},
    }


def _unflat(arrays: Mapping[str, np.ndarray]) -> Features:
    def named(prefix: str) -> dict[str, np.ndarray]:
        return {name.removeprefix(prefix): value for name, value in arrays.items() if name.startswith(prefix)}

    ids, types = (arrays[name].astype(np.int32) for name in COMPACT)
    each = int(arrays["each"]) if "each" in arrays else 1
    return Features(ids, types, arrays["cu_seqlens"], named(LABEL), named(NOTE), each)


def _compact(arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The arrays as they are kept: token numbers in the smallest type that holds them, a third of the bytes."""
    return {
        name: array.astype(np.min_scalar_type(int(array.max(initial=0)))) if name in COMPACT else array
        for name, array in arrays.items()
    }
