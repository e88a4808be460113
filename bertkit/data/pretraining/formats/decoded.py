"""Shards as they are looked at, decoded, and kept while they are in use."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Sequence

from bertkit.data.pretraining.formats import hdf5, parquet, tfrecord
from bertkit.data.pretraining.formats.rows import MAKE_AGAIN, Rows
from bertkit.data.pretraining.formats.shards import Shard, ShardFile
from bertkit.errors import UserError
from bertkit.model.vocabulary import Vocabulary


class Decoded:
    """The shards decoded last; the oldest go when there are more than `keep` sequences. Safe for several threads."""

    def __init__(self, shards: Sequence[Shard], vocabulary: Vocabulary | None, keep: int) -> None:
        self.shards, self.vocabulary, self.keep = shards, vocabulary, keep
        self.lock = threading.Lock()
        self.rows: OrderedDict[int, Rows] = OrderedDict()

    def get(self, number: int) -> Rows:
        with self.lock:
            if number not in self.rows:
                self.rows[number] = read_shard(self.shards[number], self.vocabulary)
            self.rows.move_to_end(number)
            while len(self.rows) > 1 and sum(map(len, self.rows.values())) > self.keep:
                self.rows.popitem(last=False)
            return self.rows[number]


def look(file: ShardFile) -> Shard:
    """What a shard says of itself without being decoded."""
    return {"parquet": parquet.look, "hdf5": hdf5.look, "tfrecord": tfrecord.look}[file.format](file)


def read_shard(shard: Shard, vocabulary: Vocabulary | None) -> Rows:
    """A shard, decoded. Raises UserError where it is damaged or does not fit the vocabulary."""
    file = shard.file
    if file.format == "parquet":
        if vocabulary is None:
            raise UserError(f"{file.path}: Parquet data needs the vocabulary it was made with", "name it")
        rows = parquet.read(file, vocabulary)
    else:
        rows = hdf5.read(file) if file.format == "hdf5" else tfrecord.read(file)
    if len(rows) != shard.sequences:
        raise UserError(f"{file.path}: should have {shard.sequences:,} sequences, it has {len(rows):,}", MAKE_AGAIN)
    masked = int(rows.masked_counts.max(initial=0))
    if shard.most_masked and masked > shard.most_masked:
        raise UserError(f"{file.path}: should mask {shard.most_masked} positions at the most, {masked} are", MAKE_AGAIN)
    if (longest := int(rows.lengths.max(initial=0))) > shard.longest:
        raise UserError(f"{file.path}: should have {shard.longest} tokens at the most, one has {longest}", MAKE_AGAIN)
    most = max(rows.input_ids.max(initial=0), rows.masked_labels.max(initial=0))
    if vocabulary and most >= len(vocabulary.pieces):
        raise UserError(
            f"{file.path}: has the id {most}, {vocabulary.path} has {len(vocabulary.pieces)} pieces",
            "give the vocabulary that the data was made with",
        )
    return rows
