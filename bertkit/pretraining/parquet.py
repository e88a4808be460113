"""Parquet shards in LDDL's columns: A and B as word pieces with spaces between, masks where masking was static.

Schema: LDDL (MIT), lddl/dask/bert/pretrain.py. A row without B is one made without next-sentence prediction.

Legend: N rows, T tokens with [CLS] and [SEP], M masked positions.
"""

from __future__ import annotations

import io
from typing import Any

import numpy as np

from bertkit.errors import UserError
from bertkit.pretraining.rows import MAKE_AGAIN, NO_LABEL, Rows, offsets, slots, smallest
from bertkit.pretraining.shards import INSTALL, Shard, ShardFile
from bertkit.tokenizer import Vocabulary, with_fillers

BASE = ("A", "B", "is_random_next", "num_tokens")
STATIC = ("masked_lm_positions", "masked_lm_labels")
NPY_HEADER = 128  # bytes of np.save's header for a short list


def look(file: ShardFile) -> Shard:
    """What the file's footer says. Raises UserError where a column lacks."""
    pq, pa = _libraries()
    try:
        with pq.ParquetFile(file.path) as opened:
            footer, names = opened.metadata, opened.schema_arrow.names
    except (pa.ArrowException, OSError) as error:
        raise UserError(f"{file.path}: is cut off or no Parquet file: {error}", MAKE_AGAIN) from None
    missing = [name for name in BASE if name not in names]
    static = any(name in names for name in STATIC)
    missing += [name for name in STATIC if static and name not in names]
    if missing:
        raise UserError(
            f"{file.path}: lacks {', '.join(missing)}; it has {', '.join(names)}",
            f"pre-training data has {', '.join(BASE)}",
        )
    column = names.index("num_tokens")
    groups = [footer.row_group(group).column(column).statistics for group in range(footer.num_row_groups)]
    if all(found is not None and found.has_min_max for found in groups):
        longest = max((int(found.max) for found in groups), default=0)
    else:
        longest = int(_column(file, "num_tokens").max(initial=0))
    return Shard(file, footer.num_rows, longest, static)


def read(file: ShardFile, vocabulary: Vocabulary) -> Rows:
    """All rows. Raises UserError naming the file, and the row of a word piece that the vocabulary lacks."""
    pq, pa = _libraries()
    try:
        with pq.ParquetFile(file.path) as opened:
            static = STATIC[0] in opened.schema_arrow.names
            table = opened.read(columns=[*BASE, *(STATIC if static else ())])
    except (pa.ArrowException, OSError) as error:
        raise UserError(f"{file.path}: is damaged: {error}", MAKE_AGAIN) from None
    ids = vocabulary.special_ids
    numbered = with_fillers(vocabulary.pieces)  # of a piece that stands there twice the last, as in the tokenizer
    known = pa.array(sorted(numbered, key=numbered.__getitem__), pa.string())
    first, first_counts = _pieces(file, table, "A", known, vocabulary)
    other, other_counts = _pieces(file, table, "B", known, vocabulary)
    single = other_counts == 0
    lengths = first_counts + other_counts + np.where(single, 2, 3)
    said = table["num_tokens"].to_numpy().astype(np.int64)
    wrong = np.flatnonzero((said != lengths) & (said != lengths + single))  # some count two [SEP] without B
    if len(wrong):
        row = int(wrong[0])
        raise UserError(f"{file.path}: row {row} says {said[row]} tokens, it has {lengths[row]}", MAKE_AGAIN)
    cu_seqlens = offsets(lengths)
    tokens = np.full(cu_seqlens[-1], ids["[SEP]"], np.int64)
    tokens[cu_seqlens[:-1]] = ids["[CLS]"]
    tokens[slots(cu_seqlens[:-1] + 1, first_counts)] = first
    second = np.where(single, lengths, first_counts + 2)
    tokens[slots(cu_seqlens[:-1] + second, other_counts)] = other
    labels = np.where(single, NO_LABEL, table["is_random_next"].to_numpy(zero_copy_only=False).astype(np.int64))
    positions, masked, counts = _masks(file, table, known, vocabulary, lengths) if static else _no_masks(len(lengths))
    return Rows(
        smallest(tokens),
        cu_seqlens,
        second.astype(np.int32),
        labels.astype(np.int8),
        positions.astype(np.int32),
        smallest(masked),
        offsets(counts),
    )


def lengths(file: ShardFile) -> np.ndarray:
    """(N,) tokens of each row, without decoding any other column."""
    return _column(file, "num_tokens").astype(np.int64)


def _column(file: ShardFile, name: str) -> np.ndarray:
    pq, pa = _libraries()
    try:
        with pq.ParquetFile(file.path) as opened:
            values: np.ndarray = opened.read(columns=[name])[name].to_numpy()
            return values
    except (pa.ArrowException, OSError) as error:
        raise UserError(f"{file.path}: is damaged: {error}", MAKE_AGAIN) from None


def _libraries() -> tuple[Any, Any]:
    try:
        import pyarrow as pa
        import pyarrow.compute
        import pyarrow.parquet as pq
    except ImportError:
        raise UserError("Parquet needs pyarrow", INSTALL) from None
    return pq, pa


def _pieces(
    file: ShardFile, table: Any, name: str, known: Any, vocabulary: Vocabulary
) -> tuple[np.ndarray, np.ndarray]:
    """A column of pieces with spaces between -> all their ids, and how many each row has."""
    from pyarrow import compute

    column = table[name].combine_chunks()
    lists = compute.split_pattern(compute.if_else(compute.equal(column, ""), None, column), " ")
    counts = compute.fill_null(compute.list_value_length(lists), 0).to_numpy().astype(np.int64)
    found = compute.index_in(compute.list_flatten(lists), value_set=known)
    if found.null_count:
        place = int(compute.index(found.is_null(), True).as_py())
        row = int(np.searchsorted(np.cumsum(counts), place, side="right"))
        piece = compute.list_flatten(lists)[place].as_py()
        raise UserError(
            f"{file.path}: row {row}: {piece!r} is not in {vocabulary.path}",
            "give the vocabulary that the data was made with",
        )
    return found.to_numpy().astype(np.int64), counts


def _no_masks(rows: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    return np.empty(0, np.int64), np.empty(0, np.int64), np.zeros(rows, np.int64)


def _masks(
    file: ShardFile, table: Any, known: Any, vocabulary: Vocabulary, lengths: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(M,) positions within the rows, (M,) labels, (N,) how many."""
    labels, counts = _pieces(file, table, STATIC[1], known, vocabulary)
    cells = table[STATIC[0]].combine_chunks()
    ends = np.frombuffer(cells.buffers()[1], np.int32)[cells.offset : cells.offset + len(cells) + 1].astype(np.int64)
    data = np.frombuffer(cells.buffers()[2] or b"", np.uint8)
    sizes = np.diff(ends) - NPY_HEADER
    if (sizes == 2 * counts).all() and _plain_headers(data, ends[:-1]):
        positions = data[slots(ends[:-1] + NPY_HEADER, sizes)].view("<u2").astype(np.int64)
    else:
        arrays = [_load(file, row, cell) for row, cell in enumerate(cells.to_pylist())]
        if [len(array) for array in arrays] != counts.tolist():
            raise UserError(f"{file.path}: masked positions and labels differ in number", MAKE_AGAIN)
        positions = np.concatenate([np.empty(0, np.int64), *arrays])
    row = np.repeat(np.arange(len(counts)), counts)
    behind = (positions >= lengths[row]) | (positions < 1)
    if behind.any():
        raise UserError(f"{file.path}: row {row[behind.argmax()]}: a masked position is outside it", MAKE_AGAIN)
    return positions, labels, counts


def _plain_headers(data: np.ndarray, starts: np.ndarray) -> bool:
    """Whether every cell is a list of uint16 as np.save writes it."""
    wanted = np.frombuffer(b"\x93NUMPY\x01\x00\x76\x00{'descr': '<u2', 'fortran_order': False, 'shape': (", np.uint8)
    return bool((data[starts[:, None] + np.arange(len(wanted))] == wanted).all())


def _load(file: ShardFile, row: int, cell: bytes) -> np.ndarray:
    try:
        found: np.ndarray = np.load(io.BytesIO(cell), allow_pickle=False)
        return found.astype(np.int64)
    except (ValueError, EOFError, OSError, TypeError):
        raise UserError(f"{file.path}: row {row}: its masked positions are damaged", MAKE_AGAIN) from None
