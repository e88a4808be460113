"""Shards as other programs read them: LDDL's Parquet, padded HDF5, Google's TFRecord.

Legend: N sequences, S places of a padded sequence, P masked positions at the most, M masked positions in all.
"""

from __future__ import annotations

import functools
import itertools
from pathlib import Path
from typing import Any

import numpy as np

from bertkit.data.pretraining.formats.rows import NO_LABEL, Rows, offsets, slots, take
from bertkit.data.pretraining.formats.shards import INSTALL
from bertkit.data.pretraining.formats.tf_example import encode_varints, example, framed
from bertkit.errors import UserError
from bertkit.files.disk import write_atomically
from bertkit.model.vocabulary import Vocabulary

SLAB = 8192  # rows padded at a time
HEADER = 128  # bytes of np.save's header for a short list
NO_LABEL_OUT = -1  # of a next sentence that there is none of, as others' losses ignore it


def write_parquet(path: Path, rows: Rows, vocabulary: Vocabulary, static: bool, bin: int | None) -> None:
    """LDDL's columns; `bin` adds its column too."""
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError:
        raise UserError("Parquet needs pyarrow", INSTALL) from None
    pieces = pa.array(vocabulary.pieces, pa.string())
    starts, lengths = rows.cu_seqlens[:-1], rows.lengths
    single = rows.labels == NO_LABEL
    first = np.where(single, lengths, rows.second) - 2
    second = np.where(single, 0, lengths - rows.second - 1)
    columns = {
        "A": _spaced(pieces, rows.input_ids[slots(starts + 1, first)], first),
        "B": _spaced(pieces, rows.input_ids[slots(starts + rows.second, second)], second),
        "is_random_next": pa.array(rows.labels == 1),
        "num_tokens": pa.array(lengths.astype(np.uint16)),
    }
    if static:
        columns["masked_lm_positions"] = _positions(rows)
        columns["masked_lm_labels"] = _spaced(pieces, rows.masked_labels, rows.masked_counts)
    if bin is not None:
        columns["bin_id"] = pa.array(np.full(len(rows), bin, np.int64))
    write_atomically(path, lambda temporary: pq.write_table(pa.table(columns), temporary))


def _spaced(pieces: Any, ids: np.ndarray, counts: np.ndarray) -> Any:
    """Each row's word pieces with spaces between."""
    import pyarrow as pa
    from pyarrow import compute

    lists = pa.ListArray.from_arrays(offsets(counts).astype(np.int32), pieces.take(pa.array(ids.astype(np.int32))))
    return compute.binary_join(lists, " ")


def _positions(rows: Rows) -> Any:
    """Each row's positions as np.save writes a list of uint16."""
    import pyarrow as pa

    counts = rows.masked_counts
    ends = offsets(counts * 2 + HEADER)
    data = np.empty(ends[-1], np.uint8)
    values = rows.positions.astype("<u2").view(np.uint8)
    data[slots(ends[:-1] + HEADER, counts * 2)] = values
    for count in np.unique(counts):
        data[ends[:-1][counts == count][:, None] + np.arange(HEADER)] = np.frombuffer(_header(int(count)), np.uint8)
    buffers = [None, pa.py_buffer(ends.astype(np.int32)), pa.py_buffer(data)]
    return pa.Array.from_buffers(pa.binary(), len(rows), buffers)


def _header(count: int) -> bytes:
    text = f"{{'descr': '<u2', 'fortran_order': False, 'shape': ({count},), }}"
    return b"\x93NUMPY\x01\x00\x76\x00" + text.encode().ljust(HEADER - 11) + b"\n"


def padded(rows: Rows, width: int, most: int) -> dict[str, np.ndarray]:
    """The arrays of an HDF5 shard, (N, S) and (N, P), padded with 0."""
    place = np.arange(width)
    real = place < rows.lengths[:, None]
    made = {"input_ids": np.zeros(real.shape, np.int32)}
    made["input_ids"][real] = rows.input_ids
    made["input_mask"] = real.astype(np.int8)
    made["segment_ids"] = (real & (place >= rows.second[:, None])).astype(np.int8)
    hidden = np.arange(most) < rows.masked_counts[:, None]
    for name, values in (("masked_lm_positions", rows.positions), ("masked_lm_ids", rows.masked_labels)):
        made[name] = np.zeros(hidden.shape, np.int32)
        made[name][hidden] = values
    made["next_sentence_labels"] = np.where(rows.labels == NO_LABEL, NO_LABEL_OUT, rows.labels).astype(np.int8)
    return made


def write_hdf5(path: Path, rows: Rows, width: int, most: int, compress: bool) -> None:
    try:
        import h5py
    except ImportError:
        raise UserError("HDF5 needs h5py", INSTALL) from None
    write_atomically(path, lambda temporary: _fill_hdf5(h5py, temporary, rows, width, most, compress))


def _fill_hdf5(h5py: Any, path: Path, rows: Rows, width: int, most: int, compress: bool) -> None:
    with h5py.File(path, "w") as file:
        made = {}
        for name, array in padded(take(rows, np.arange(0)), width, most).items():
            chunks = (max(1, min(len(rows), 1024)), *array.shape[1:])
            options = {"compression": "gzip", "compression_opts": 4, "chunks": chunks} if compress and len(rows) else {}
            shape = (len(rows), *array.shape[1:])
            made[name] = file.create_dataset(name, shape, array.dtype, track_times=False, **options)
        for start in range(0, len(rows), SLAB):
            part = np.arange(start, min(start + SLAB, len(rows)))
            for name, array in padded(take(rows, part), width, most).items():
                made[name][start : start + len(part)] = array
                # Chunks take their places in the file now, not when a dataset is closed: another thread that looks at
                # this one's frames, as Dask's profiler does, keeps it open, and the bytes would be others.
                made[name].flush()


def write_tfrecord(path: Path, rows: Rows, width: int, most: int) -> None:
    write_atomically(path, functools.partial(_fill_tfrecord, rows, width, most))


def _fill_tfrecord(rows: Rows, width: int, most: int, path: Path) -> None:
    with path.open("wb") as file:
        for start in range(0, len(rows), SLAB):
            part = take(rows, np.arange(start, min(start + SLAB, len(rows))))
            arrays = padded(part, width, most)
            weights = (np.arange(most) < part.masked_counts[:, None]).astype("<f4")
            packed = {name: _varints(array) for name, array in arrays.items()}
            for row in range(len(part)):
                features = {name: (3, cells[row]) for name, cells in packed.items()}
                features["masked_lm_weights"] = (2, weights[row].tobytes())
                file.write(framed(example(features)))


def _varints(array: np.ndarray) -> list[bytes]:
    """Each row's numbers packed."""
    data, sizes = encode_varints(array.reshape(-1).astype(np.int64))
    ends = offsets(sizes.reshape(len(array), -1).sum(1)).tolist()
    whole = data.tobytes()
    return [whole[start:end] for start, end in itertools.pairwise(ends)]
