"""TFRecord shards of google-research/bert's create_pretraining_data.py, of one sequence a record or of several.

Legend: N records, S places of a record, P masked positions at the most, K sequences of a record.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from bertkit.data.pretraining.formats.padded import PACKED, Padded, slab, unpad
from bertkit.data.pretraining.formats.rows import MAKE_AGAIN, Rows, join
from bertkit.data.pretraining.formats.shards import Shard, ShardFile
from bertkit.data.pretraining.formats.tf_example import (
    HEADER,
    Raw,
    Span,
    check_data,
    decode_varints,
    features,
    mapped,
    records,
)
from bertkit.errors import UserError

INTEGERS = ("input_ids", "input_mask", "segment_ids", "masked_lm_positions", "masked_lm_ids", "next_sentence_labels")
WEIGHTS = "masked_lm_weights"  # over 0 a masked position, 0 padding; some writers leave it out
FLOATS, INT64 = 2, 3
LAST_BYTE, LONGEST_NUMBER = 0x7F, 10  # of a number: its last byte at the most, and how many it has
Cells = list[tuple[int, bytes]]  # of one feature in each record: kind and packed values; kind 0: the record lacks it


def look(file: ShardFile) -> Shard:
    """Sequences by the framing, widths by the first record. Raises UserError naming the offset of what is broken."""
    raw = mapped(file.path)
    places = list(records(raw, file.path))
    if not places:
        return Shard(file, 0, 0, static=True)
    first = _padded(file, raw, places[:1])
    several = first.labels.shape[1]
    sequences = len(places) if several == 1 else _count(file, raw, places, several)
    return Shard(file, sequences, first.input_ids.shape[1], True, first.positions.shape[1])


def read(file: ShardFile) -> Rows:
    """All records, their CRCs checked. Raises UserError naming the file and the offset of what is broken."""
    raw = mapped(file.path)
    places = list(records(raw, file.path))
    if not places:
        raise UserError(f"{file.path}: holds no records", MAKE_AGAIN)
    first = _padded(file, raw, places[:1])
    size = slab(first.input_ids.shape[1], first.labels.shape[1])
    starts = range(0, len(places), size)
    return join([unpad(_padded(file, raw, places[start : start + size]), file.path, start) for start in starts])


def _padded(file: ShardFile, raw: Raw, places: Sequence[Span]) -> Padded:
    columns = _columns(file, raw, places, INTEGERS, (WEIGHTS, *PACKED.values()))
    ids, mask, segments, positions, masked, labels = (_table(file, places, name, columns[name]) for name in INTEGERS)
    alike = (("input_mask", mask, ids), ("segment_ids", segments, ids), ("masked_lm_positions", positions, masked))
    for name, one, other in alike:
        if one.shape != other.shape:
            raise _odd(file, places[0], f"has {one.shape[1]} values of {name}, not {other.shape[1]}")
    if labels.shape[1] > ids.shape[1]:
        raise _odd(file, places[0], f"has {labels.shape[1]} sequences in {ids.shape[1]} places")
    weights = _optional(file, places, WEIGHTS, columns[WEIGHTS], masked.shape[1])
    if labels.shape[1] == 1:
        return Padded(ids, mask, segments, positions, masked, labels, weights)
    more: dict[str, Any] = {
        field: _optional(file, places, name, columns[name], (ids if field == "places" else labels).shape[1])
        for field, name in PACKED.items()
    }
    return Padded(ids, mask, segments, positions, masked, labels, weights, **more)


def _odd(file: ShardFile, span: Span, said: str) -> UserError:
    return UserError(f"{file.path}: the record at byte {span[0] - HEADER:,} {said}", MAKE_AGAIN)


def _columns(
    file: ShardFile, raw: Raw, places: Sequence[Span], integers: Sequence[str], others: Sequence[str]
) -> dict[str, Cells]:
    """The features of these names. Raises UserError where a record lacks one of `integers`."""
    columns: dict[str, Cells] = {name: [] for name in (*integers, *others)}
    for span in places:
        check_data(raw, span, file.path)
        data = raw[slice(*span)]
        where = f"{file.path}: the record at byte {span[0] - HEADER:,}"
        try:
            found = features(data)
        except (ValueError, IndexError, KeyError, UnicodeDecodeError):
            raise UserError(f"{where} is no tf.train.Example", "these are not pre-training records") from None
        for name, cells in columns.items():
            kind, spans = found.get(name, (0, []))
            if name in integers and kind != INT64:
                had = ", ".join(sorted(found)) or "nothing"
                raise UserError(f"{where} lacks {name}; it has {had}", "pre-training records have it as int64")
            cells.append((kind, b"".join(data[start:end] for start, end in spans)))
    return columns


def _count(file: ShardFile, raw: Raw, places: Sequence[Span], width: int) -> int:
    """The sequences of records that hold up to `width` each, by their weights alone."""
    name = PACKED["there"]
    there = _optional(file, places, name, _columns(file, raw, places, (), (name,))[name], width)
    if there is None:
        raise UserError(f"{file.path}: has {width} labels a record and lacks {name}", MAKE_AGAIN)
    return int(np.count_nonzero(there))


def _optional(file: ShardFile, places: Sequence[Span], name: str, cells: Cells, width: int) -> np.ndarray | None:
    """(N, width) values of a feature, floats or integers; None where a record lacks it."""
    kinds = {kind for kind, _ in cells}
    if kinds == {0} or (0 in kinds and name == WEIGHTS):
        return None
    if kinds == {INT64}:
        return _table(file, places, name, cells, width)
    if kinds != {FLOATS} or any(len(cell) != 4 * width for _, cell in cells):
        raise UserError(f"{file.path}: {name} has not {width} values in each record", MAKE_AGAIN)
    return np.frombuffer(b"".join(cell for _, cell in cells), "<f4").reshape(len(places), width)


def _table(file: ShardFile, places: Sequence[Span], name: str, cells: Cells, width: int = 0) -> np.ndarray:
    """(N, width) values of a feature that must be as long in every record; 0: as long as in the first."""
    data = np.frombuffer(b"".join(cell for _, cell in cells), np.uint8)
    bounds = np.cumsum([len(cell) for _, cell in cells])
    open_ends = np.flatnonzero(np.array([bool(cell) and cell[-1] > LAST_BYTE for _, cell in cells]))
    if len(open_ends):
        raise _odd(file, places[open_ends[0]], f"ends within a number of {name}")
    values, ends = decode_varints(data)
    sizes = np.diff(ends, prepend=0)
    if (long := (sizes > LONGEST_NUMBER) | ((sizes == LONGEST_NUMBER) & (data[ends - 1] > 1))).any():
        record = int(np.searchsorted(bounds, ends[long.argmax()]))
        raise _odd(file, places[record], f"has a number of over 64 bits in {name}")
    counts = np.diff(np.searchsorted(ends, bounds, side="right"), prepend=0)
    if width and (counts != width).any():
        raise UserError(f"{file.path}: {name} has not {width} values in each record", MAKE_AGAIN)
    width = counts[0]
    if (counts != width).any() or not width:
        odd = int((counts != width).argmax())
        raise UserError(
            f"{file.path}: the record at byte {places[odd][0] - HEADER:,} has {counts[odd]} values of {name}, "
            f"the one at byte {places[0][0] - HEADER:,} has {width}",
            "give each length a file of its own",
        )
    return values.reshape(len(cells), width)
