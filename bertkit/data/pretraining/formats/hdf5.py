"""HDF5 shards with the keys of the PyTorch BERT examples and of MLPerf's data: padded rows, compressed or not.

Also files that hold a dense `labels` (or `masked_lm_labels`) with 0, -1 or -100 where nothing is masked, and rows of
several sequences, whose `next_sentence_labels` are (N, K).

Legend: N rows, S places of a row, P masked positions at the most, K sequences of a row.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from bertkit.data.pretraining.formats.checked import reading
from bertkit.data.pretraining.formats.padded import PACKED, Padded, slab, unpad
from bertkit.data.pretraining.formats.rows import MAKE_AGAIN, Rows, join
from bertkit.data.pretraining.formats.shards import INSTALL, Shard, ShardFile
from bertkit.errors import UserError
from bertkit.files import inputs

KEYS = ("input_ids", "input_mask", "segment_ids", "next_sentence_labels")
SPARSE = ("masked_lm_positions", "masked_lm_ids")
DENSE = ("labels", "masked_lm_labels")
WEIGHTS = "masked_lm_weights"  # over 0: the position is predicted; most files have none
READ = (*KEYS, *SPARSE, *DENSE, WEIGHTS, *PACKED.values())
TIGHTEST = 1100  # bytes that gzip can make of one are 1,032
Sets = Mapping[str, Any]  # the file's data sets that are read, by name


def look(file: ShardFile) -> Shard:
    """Sequences and widths by the file's header, of packed rows also by their weights.

    Raises UserError where a key lacks or shapes do not fit.
    """
    with _opened(file.path) as data:
        sequences, longest = data["input_ids"].shape
        if _packed(data):
            with reading(file.path):
                there = data[PACKED["there"]][:]
            sequences = np.count_nonzero(there)
        most = data[SPARSE[1]].shape[1] if SPARSE[1] in data else 0
        return Shard(file, int(sequences), int(longest), static=True, most_masked=int(most))


def read(file: ShardFile) -> Rows:
    """All rows. Raises UserError naming the file, and the row where one is at fault."""
    with _opened(file.path) as data:
        (rows, width), labels = data["input_ids"].shape, data["next_sentence_labels"].shape
        size = slab(width, labels[1] if len(labels) > 1 else 1)
        return join(
            [unpad(_slab(data, start, size, file.path), file.path, start) for start in range(0, max(1, rows), size)]
        )


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[Sets]:
    try:
        import h5py
    except ImportError:
        raise UserError(f"{path}: HDF5 needs h5py", INSTALL) from None
    size = inputs.check_file(path, MAKE_AGAIN)
    with reading(path, what="is cut off or no HDF5 file"):
        file = h5py.File(path, "r")
    with contextlib.closing(file):
        with reading(path):
            names = sorted(name for name in file if isinstance(name, str))
            sets = {name: _data_set(file, name, path, size, h5py) for name in READ if name in names}
        _check(sets, names, path)
        yield sets


def _data_set(file: Any, name: str, path: Path, size: int, h5py: Any) -> Any:
    """One of the file's data sets. Raises UserError where the name is something else's, or it cannot be in the file."""
    link = file.get(name, getlink=True)
    found = file[name] if isinstance(link, h5py.HardLink) else None
    if not isinstance(found, h5py.Dataset) or found.shape is None:
        raise UserError(f"{path}: {name} is not an array in this file", MAKE_AGAIN)
    if found.is_virtual or found.external:
        raise UserError(f"{path}: {name} refers to another file", "copy the data into one file")
    if found.size * found.dtype.itemsize > size * (TIGHTEST if found.chunks else 1):
        shape = " x ".join(map(str, found.shape))
        raise UserError(
            f"{path}: {name} claims the shape {shape}, more than the file's {size:,} bytes can hold", MAKE_AGAIN
        )
    return found


def _packed(data: Sets) -> bool:
    shape = data["next_sentence_labels"].shape
    return len(shape) > 1 and shape[1] > 1


def _check(data: Sets, names: list[str], path: Path) -> None:
    labels = SPARSE if SPARSE[1] in data else DENSE[:1] if not any(name in data for name in DENSE) else ()
    packed = PACKED.values() if "next_sentence_labels" in data and _packed(data) else ()
    missing = [name for name in (*KEYS, *labels, *packed) if name not in data]
    if missing:
        had = ", ".join(names) or "nothing"
        wanted = ", ".join((*KEYS, *SPARSE, *packed))
        raise UserError(f"{path}: lacks {', '.join(missing)}; it has {had}", f"pre-training data has {wanted}")
    for name in ("input_ids", *labels[1:]):
        if len(data[name].shape) != 2 or not data[name].shape[1]:
            raise UserError(f"{path}: {name} is {data[name].shape}, not rows of numbers", MAKE_AGAIN)
    shape, said = data["input_ids"].shape, data["next_sentence_labels"].shape
    if len(said) > 2 or (len(said) == 2 and not 1 <= said[1] <= shape[1]):
        raise UserError(f"{path}: next_sentence_labels is {said}, input_ids {shape}", MAKE_AGAIN)
    for name in (*KEYS, *labels, *packed):
        rows = data[name].shape[:1]
        if rows != shape[:1]:
            raise UserError(f"{path}: {name} has {rows} rows, input_ids {shape[:1]}", MAKE_AGAIN)
    dense = () if labels == SPARSE else [each for each in DENSE if each in data]
    like = dict.fromkeys(("input_mask", "segment_ids", *dense), "input_ids")
    like |= {SPARSE[0]: SPARSE[1]} | ({WEIGHTS: SPARSE[1]} if WEIGHTS in data else {}) if labels == SPARSE else {}
    like |= {name: "input_ids" if name == PACKED["places"] else "next_sentence_labels" for name in packed}
    for name, other in like.items():
        if data[name].shape != data[other].shape:
            raise UserError(f"{path}: {name} is {data[name].shape}, {other} {data[other].shape}", MAKE_AGAIN)


def _slab(data: Sets, start: int, size: int, path: Path) -> Padded:
    def rows(name: str) -> np.ndarray:
        with reading(path):
            array: np.ndarray = data[name][start : start + size]
        return array

    dense = SPARSE[1] not in data
    masked = rows(next(name for name in DENSE if name in data) if dense else SPARSE[1])
    positions = np.broadcast_to(np.arange(masked.shape[1]), masked.shape) if dense else rows(SPARSE[0])
    weights = rows(WEIGHTS) if WEIGHTS in data and not dense else None
    labels = rows("next_sentence_labels")
    labels = labels if labels.ndim == 2 else labels[:, None]
    more: dict[str, Any] = {field: rows(name) for field, name in PACKED.items()} if _packed(data) else {}
    ids, mask, segments = rows("input_ids"), rows("input_mask"), rows("segment_ids")
    return Padded(ids, mask, segments, positions, masked, labels, weights, dense=dense, **more)
