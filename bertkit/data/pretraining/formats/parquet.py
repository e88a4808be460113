"""Parquet shards in LDDL's columns: A and B as word pieces with spaces between, masks where masking was static.

Schema: LDDL (MIT), lddl/dask/bert/pretrain.py. A row without B is one made without next-sentence prediction.

Legend: N rows, T tokens with [CLS] and [SEP], M masked positions.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from bertkit.data.pretraining.formats import arrow
from bertkit.data.pretraining.formats.checked import LARGEST_ID, RowPlace, reading
from bertkit.data.pretraining.formats.rows import MAKE_AGAIN, NO_LABEL, Rows, offsets, slots, smallest
from bertkit.data.pretraining.formats.shards import INSTALL, Shard, ShardFile
from bertkit.errors import UserError
from bertkit.files import inputs
from bertkit.model.tokenizer import with_fillers
from bertkit.model.vocabulary import Vocabulary

BASE = ("A", "B", "is_random_next", "num_tokens")
STATIC = ("masked_lm_positions", "masked_lm_labels")


def look(file: ShardFile) -> Shard:
    """What the file's footer says, and its column of lengths. Raises UserError where a column lacks."""
    pq, _ = _libraries()
    inputs.check_file(file.path, MAKE_AGAIN)
    with reading(file.path, what="is cut off or no Parquet file"), pq.ParquetFile(file.path) as opened:
        names = opened.schema_arrow.names
        rows = opened.metadata.num_rows
    missing = [name for name in BASE if name not in names]
    static = any(name in names for name in STATIC)
    missing += [name for name in STATIC if static and name not in names]
    if missing:
        raise UserError(
            f"{file.path}: lacks {', '.join(missing)}; it has {', '.join(names)}",
            f"pre-training data has {', '.join(BASE)}",
        )
    # Not by the footer's statistics: of a damaged one pyarrow 26 ends the whole process.
    return Shard(file, rows, int(lengths(file).max(initial=0)), static)


def read(file: ShardFile, vocabulary: Vocabulary) -> Rows:
    """All rows. Raises UserError naming the file, and the row of a word piece that the vocabulary lacks."""
    pq, pa = _libraries()
    place = RowPlace(file.path)
    with reading(file.path), pq.ParquetFile(file.path) as opened:
        static = STATIC[0] in opened.schema_arrow.names
        table = opened.read(columns=[*BASE, *(STATIC if static else ())])
    ids = vocabulary.special_ids
    numbered = with_fillers(vocabulary.pieces)  # of a piece that stands there twice the last, as in the tokenizer
    known = pa.array(sorted(numbered, key=numbered.__getitem__), pa.string())
    first, first_counts = _pieces(table, "A", known, vocabulary, place)
    other, other_counts = _pieces(table, "B", known, vocabulary, place)
    single = other_counts == 0
    lengths = first_counts + other_counts + np.where(single, 2, 3)
    said = arrow.whole(table, "num_tokens", place, 0, LARGEST_ID)
    wrong = np.flatnonzero((said != lengths) & (said != lengths + single))  # some count two [SEP] without B
    if len(wrong):
        row = int(wrong[0])
        raise place.fault(row, f"says {said[row]} tokens, it has {lengths[row]}")
    cu_seqlens = offsets(lengths)
    tokens = np.full(cu_seqlens[-1], ids["[SEP]"], np.int64)
    tokens[cu_seqlens[:-1]] = ids["[CLS]"]
    tokens[slots(cu_seqlens[:-1] + 1, first_counts)] = first
    second = np.where(single, lengths, first_counts + 2)
    tokens[slots(cu_seqlens[:-1] + second, other_counts)] = other
    positions, masked, counts = _masks(table, known, vocabulary, lengths, place) if static else _no_masks(len(lengths))
    return Rows(
        smallest(tokens),
        cu_seqlens,
        second.astype(np.int32),
        _labels(table, single, place).astype(np.int8),
        positions.astype(np.int32),
        smallest(masked),
        offsets(counts),
    )


def lengths(file: ShardFile) -> np.ndarray:
    """(N,) tokens of each row, without decoding any other column."""
    pq, _ = _libraries()
    with reading(file.path), pq.ParquetFile(file.path) as opened:
        table = opened.read(columns=["num_tokens"])
    return arrow.whole(table, "num_tokens", RowPlace(file.path), 0, LARGEST_ID)


def _libraries() -> tuple[Any, Any]:
    try:
        import pyarrow as pa
        import pyarrow.compute
        import pyarrow.parquet as pq
    except ImportError:
        raise UserError("Parquet needs pyarrow", INSTALL) from None
    return pq, pa


def _labels(table: Any, single: np.ndarray, place: RowPlace) -> np.ndarray:
    """(N,) whether the second segment is a random one; NO_LABEL where there is none."""
    said = arrow.whole(table, "is_random_next", place, 0, 1, none=0 if single.all() else None)
    return np.where(single, NO_LABEL, said)


def _pieces(
    table: Any, name: str, known: Any, vocabulary: Vocabulary, place: RowPlace
) -> tuple[np.ndarray, np.ndarray]:
    """A column of pieces -> all their ids, and how many each row has."""
    found, counts, flat = arrow.pieces(table, name, known, place)
    unknown = found < 0
    if unknown.any():
        at = int(unknown.argmax())
        row = int(np.searchsorted(np.cumsum(counts), at, side="right"))
        raise UserError(
            f"{place.path}: row {row}: {flat[at].as_py()!r} is not in {vocabulary.path}",
            "give the vocabulary that the data was made with",
        )
    return found, counts


def _no_masks(rows: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    return np.empty(0, np.int64), np.empty(0, np.int64), np.zeros(rows, np.int64)


def _masks(
    table: Any, known: Any, vocabulary: Vocabulary, lengths: np.ndarray, place: RowPlace
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(M,) positions within the rows, (M,) labels, (N,) how many."""
    labels, counts = _pieces(table, STATIC[1], known, vocabulary, place)
    positions = arrow.positions(table, STATIC[0], counts, place)
    row = np.repeat(np.arange(len(counts)), counts)
    behind = (positions >= lengths[row]) | (positions < 1)
    if behind.any():
        raise place.fault(int(row[behind.argmax()]), "a masked position is outside it")
    key = np.sort(row << 32 | positions)
    if (twice := key[1:] == key[:-1]).any():
        raise place.fault(int(key[1:][twice][0] >> 32), "a position is masked twice")
    return positions, labels, counts
