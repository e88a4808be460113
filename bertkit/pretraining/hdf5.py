"""HDF5 shards with the keys of the PyTorch BERT examples and of MLPerf's data: padded rows, compressed or not.

Also files that hold a dense `labels` (or `masked_lm_labels`) with 0, -1 or -100 where nothing is masked, and rows of
several sequences, whose `next_sentence_labels` are (N, K).

Legend: N rows, S places of a row, P masked positions at the most, K sequences of a row.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from bertkit.errors import UserError
from bertkit.pretraining.padded import PACKED, Padded, unpad
from bertkit.pretraining.rows import MAKE_AGAIN, Rows, join
from bertkit.pretraining.shards import INSTALL, Shard, ShardFile

KEYS = ("input_ids", "input_mask", "segment_ids", "next_sentence_labels")
SPARSE = ("masked_lm_positions", "masked_lm_ids")
DENSE = ("labels", "masked_lm_labels")
SLAB = 8192  # rows decoded at a time, so that padding does not fill the memory


def look(file: ShardFile) -> Shard:
    """Sequences and widths by the file's header, of packed rows also by their weights.

    Raises UserError where a key lacks or shapes do not fit.
    """
    with _opened(file.path) as data:
        sequences, longest = data["input_ids"].shape
        if _packed(data):
            sequences = np.count_nonzero(data[PACKED["there"]][:])
        most = data[SPARSE[1]].shape[1] if SPARSE[1] in data else 0
        return Shard(file, int(sequences), int(longest), static=True, most_masked=int(most))


def read(file: ShardFile) -> Rows:
    """All rows. Raises UserError naming the file, and the row where one is at fault."""
    with _opened(file.path) as data:
        starts = range(0, max(1, data["input_ids"].shape[0]), SLAB)
        return join([unpad(_slab(data, start), file.path, start) for start in starts])


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[Any]:
    try:
        import h5py
    except ImportError:
        raise UserError(f"{path}: HDF5 needs h5py", INSTALL) from None
    try:
        file = h5py.File(path, "r")
    except OSError as error:
        raise UserError(f"{path}: is cut off or no HDF5 file: {error}", MAKE_AGAIN) from None
    with file as data:
        try:
            _check(data, path)
            yield data
        except (OSError, RuntimeError) as error:
            raise UserError(f"{path}: is damaged: {error}", MAKE_AGAIN) from None


def _packed(data: Any) -> bool:
    shape = data["next_sentence_labels"].shape
    return len(shape) > 1 and shape[1] > 1


def _check(data: Any, path: Path) -> None:
    labels = SPARSE if SPARSE[1] in data else DENSE[:1] if not any(name in data for name in DENSE) else ()
    packed = PACKED.values() if "next_sentence_labels" in data and _packed(data) else ()
    missing = [name for name in (*KEYS, *labels, *packed) if name not in data]
    if missing:
        had = ", ".join(sorted(data)) or "nothing"
        wanted = ", ".join((*KEYS, *SPARSE, *packed))
        raise UserError(f"{path}: lacks {', '.join(missing)}; it has {had}", f"pre-training data has {wanted}")
    shape = data["input_ids"].shape
    for name in data:
        rows = data[name].shape[:1]
        if name in (*KEYS, *SPARSE, *DENSE, *packed) and rows != shape[:1]:
            raise UserError(f"{path}: {name} has {rows} rows, input_ids {shape[:1]}", MAKE_AGAIN)
    for name in ("input_mask", "segment_ids", *(each for each in DENSE if each in data)):
        _check_shape(data, name, "input_ids", path)
    for name in packed:
        _check_shape(data, name, "input_ids" if name == PACKED["places"] else "next_sentence_labels", path)


def _check_shape(data: Any, name: str, like: str, path: Path) -> None:
    if data[name].shape != data[like].shape:
        raise UserError(f"{path}: {name} is {data[name].shape}, {like} {data[like].shape}", MAKE_AGAIN)


def _slab(data: Any, start: int) -> Padded:
    def rows(name: str) -> np.ndarray:
        array: np.ndarray = data[name][start : start + SLAB]
        return array

    if SPARSE[1] in data:
        positions, masked = rows(SPARSE[0]), rows(SPARSE[1])
    else:
        masked = rows(next(name for name in DENSE if name in data))
        positions = np.broadcast_to(np.arange(masked.shape[1]), masked.shape)
    labels = rows("next_sentence_labels")
    more = {field: rows(name) for field, name in PACKED.items()} if _packed(data) else {}
    ids, mask, segments = rows("input_ids"), rows("input_mask"), rows("segment_ids")
    return Padded(ids, mask, segments, positions, masked, labels.reshape(len(labels), -1), **more)
