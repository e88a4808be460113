"""The tasks that making pre-training data is cut into.

Each is a pure function of (work, number), whoever does it, and what it writes is whole or absent.
"""

from __future__ import annotations

import functools
from dataclasses import asdict
from pathlib import Path

import numpy as np

from bertkit.data.pretraining.formats.checked import reading
from bertkit.data.pretraining.formats.manifest import ShardEntry
from bertkit.data.pretraining.formats.rows import Rows, join, take
from bertkit.data.pretraining.formats.writers import write_hdf5, write_parquet, write_tfrecord
from bertkit.data.pretraining.masking import MaskingRule, pieces_of
from bertkit.data.pretraining.prepare.chunks import Counts, Making, blocks, make
from bertkit.data.pretraining.prepare.external_shuffle import gather, write_spill
from bertkit.data.pretraining.prepare.fast_wordpiece import WordCache
from bertkit.data.pretraining.prepare.sentence_pairs import PairShape
from bertkit.data.pretraining.prepare.texts import Notes
from bertkit.data.pretraining.prepare.work import START_ANEW, Settings, Work
from bertkit.distributed.workers import Done
from bertkit.files.disk import read_sealed, sha256_file
from bertkit.model.vocabulary import Vocabulary

GROUPS, ORDER = 1, 2  # what a random order is of
SPILLS, SIZES = "spills.json", "sizes.json"  # in OUT/.unfinished


def spill_piece(work: Work, number: int) -> Done:
    """One piece of the corpus as sequences in spill files."""
    settings, counts, notes = work.settings, Counts(), Notes()
    words, pieces = _words(work.vocabulary), pieces_of(work.vocabulary)
    shape = PairShape(settings.seq_length, settings.next_sentence, settings.short)
    rule = MaskingRule(settings.share, settings.most_masked, settings.whole_words)
    making = Making(shape, rule if settings.masking == "static" else None, settings.duplicates, settings.seed)
    spills, hashes, sequences = [], [], 0
    for turn, block in enumerate(blocks(work.pieces[number], work.sources, words, shape.room, counts, notes)):
        made = list(make(block, making, pieces, number, turn))
        if not sum(map(len, made)):
            continue
        rows = join(made)
        spills.append(f"spill-{number:06d}-{turn:04d}.safetensors")
        sequences += len(rows)
        seed = (settings.seed, GROUPS, number, turn)
        path = work.desk / spills[-1]
        hashes.append(write_spill(path, rows, settings.bin_size, settings.bins, work.shards, seed))
    return {
        "spills": spills,
        "hashes": hashes,
        "sequences": sequences,
        "notes": notes.counts,
        "first": notes.first,
        **asdict(counts),
    }


def write_shard(work: Work, number: int) -> Done:
    """One shard, of every bin."""
    settings = work.settings
    with reading(work.desk / SPILLS, START_ANEW):
        spills = [work.desk / name for name in read_sealed(work.desk / SPILLS, START_ANEW)["spills"]]
    with reading(work.desk / SIZES, START_ANEW):
        sizes = np.array(read_sealed(work.desk / SIZES, START_ANEW)["sizes"], np.int64)
    entries, most = [], 0
    for bin, rows in enumerate(gather(spills, sizes, number, work.shards)):
        stream = np.random.Generator(np.random.PCG64(np.random.SeedSequence([settings.seed, ORDER, number, bin])))
        rows = take(rows, stream.permutation(len(rows)))
        path = work.out / shard_name(settings, number, work.shards, bin)
        _write(path, rows, work, bin)
        most = max(most, int(rows.masked_counts.max(initial=0)))
        masked = len(rows.positions)
        size = path.stat().st_size
        entries.append(asdict(ShardEntry(path.name, len(rows), len(rows.input_ids), masked, size, sha256_file(path))))
    return {"entries": entries, "most_masked": most}


def hash_source(work: Work, number: int) -> Done:
    return {"sha256": sha256_file(work.sources[number].path)}


def shard_name(settings: Settings, number: int, shards: int, bin: int) -> str:
    """As LDDL, MLPerf's chopped data and TensorFlow name theirs."""
    if settings.format == "parquet":
        return f"part.{number}.parquet" + (f"_{bin}" if settings.bin_size else "")
    if settings.format == "hdf5":
        return f"part_{number:05d}_of_{shards:05d}.hdf5"
    return f"part.tfrecord-{number:05d}-of-{shards:05d}"


def _write(path: Path, rows: Rows, work: Work, bin: int) -> None:
    settings = work.settings
    if settings.format == "parquet":
        static = settings.masking == "static"
        write_parquet(path, rows, work.vocabulary, static, bin if settings.bin_size else None)
    elif settings.format == "hdf5":
        write_hdf5(path, rows, settings.seq_length, settings.most_masked, settings.compress)
    else:
        write_tfrecord(path, rows, settings.seq_length, settings.most_masked)


@functools.lru_cache(maxsize=1)
def _words(vocabulary: Vocabulary) -> WordCache:
    """This process's memory of words, kept from piece to piece."""
    return WordCache(vocabulary)
