"""TFRecord shards of google-research/bert's create_pretraining_data.py.

Legend: N records, S places of a sequence, P masked positions at the most.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from bertkit.errors import UserError
from bertkit.pretraining.rows import MAKE_AGAIN, Padded, Rows, join, unpad
from bertkit.pretraining.shards import Shard, ShardFile
from bertkit.pretraining.tf_example import Raw, Span, check_data, decode_varints, features, mapped, records

INTEGERS = ("input_ids", "input_mask", "segment_ids", "masked_lm_positions", "masked_lm_ids", "next_sentence_labels")
WEIGHTS = "masked_lm_weights"  # 1.0 a masked position, 0.0 padding; some writers leave it out
FLOATS, INT64 = 2, 3
SLAB = 8192  # records decoded at a time


def look(file: ShardFile) -> Shard:
    """Sequences by the framing, widths by the first record. Raises UserError naming the offset of what is broken."""
    raw = mapped(file.path)
    places = list(records(raw, file.path))
    if not places:
        return Shard(file, 0, 0, static=True)
    first = _padded(file, raw, places[:1])
    return Shard(file, len(places), first.input_ids.shape[1], True, first.positions.shape[1])


def read(file: ShardFile) -> Rows:
    """All records, their CRCs checked. Raises UserError naming the file and the offset of what is broken."""
    raw = mapped(file.path)
    places = list(records(raw, file.path))
    if not places:
        raise UserError(f"{file.path}: holds no records", MAKE_AGAIN)
    parts = [places[start : start + SLAB] for start in range(0, len(places), SLAB)]
    return join([unpad(_padded(file, raw, part), file.path, SLAB * number) for number, part in enumerate(parts)])


def _padded(file: ShardFile, raw: Raw, places: Sequence[Span]) -> Padded:
    columns: dict[str, list[bytes]] = {name: [] for name in (*INTEGERS, WEIGHTS)}
    for span in places:
        check_data(raw, span, file.path)
        data = raw[slice(*span)]
        where = f"{file.path}: the record at byte {span[0] - 12:,}"
        try:
            found = features(data)
        except (ValueError, IndexError, KeyError, UnicodeDecodeError):
            raise UserError(f"{where} is no tf.train.Example", "these are not pre-training records") from None
        for name in INTEGERS:
            kind, spans = found.get(name, (0, []))
            if kind != INT64:
                had = ", ".join(sorted(found)) or "nothing"
                raise UserError(f"{where} lacks {name}; it has {had}", "pre-training records have it as int64")
            columns[name].append(b"".join(data[start:end] for start, end in spans))
        kind, spans = found.get(WEIGHTS, (0, []))
        columns[WEIGHTS].append(b"".join(data[start:end] for start, end in spans) if kind == FLOATS else b"")
    tables = {name: _table(file, places, name, columns[name]) for name in INTEGERS}
    masked = tables["masked_lm_ids"]
    if all(columns[WEIGHTS]):
        weights = np.frombuffer(b"".join(columns[WEIGHTS]), "<f4")
        if len(weights) != masked.size:
            raise UserError(f"{file.path}: {WEIGHTS} and masked_lm_ids differ in length", MAKE_AGAIN)
        masked = np.where(weights.reshape(masked.shape) > 0, masked, 0)
    ids, mask, segments, positions = (tables[name] for name in INTEGERS[:4])
    return Padded(ids, mask, segments, positions, masked, tables["next_sentence_labels"][:, 0])


def _table(file: ShardFile, places: Sequence[Span], name: str, cells: list[bytes]) -> np.ndarray:
    """(N, width) values of a feature that must be as long in every record."""
    values, ends = decode_varints(np.frombuffer(b"".join(cells), np.uint8))
    bounds = np.cumsum([len(cell) for cell in cells])
    counts = np.diff(np.searchsorted(ends, bounds, side="right"), prepend=0)
    width = counts[0]
    if (counts != width).any() or not width:
        odd = int((counts != width).argmax())
        raise UserError(
            f"{file.path}: the record at byte {places[odd][0] - 12:,} has {counts[odd]} values of {name}, "
            f"the one at byte {places[0][0] - 12:,} has {width}",
            "give each length a file of its own",
        )
    return values.reshape(len(cells), width)
