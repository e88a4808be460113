"""Pre-training data that does not fit together or is damaged: one line that names the file and the place."""

from __future__ import annotations

import dataclasses
import struct
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest

from bertkit.data.pretraining import open_data
from bertkit.errors import UserError
from bertkit.model.vocabulary import Vocabulary
from pretraining_files import (
    PIECES,
    ROW,
    Known,
    known_sequences,
    write_hdf5,
    write_packed_hdf5,
    write_packed_tfrecord,
    write_parquet,
    write_tfrecord,
)

KNOWN = known_sequences(40)
Write = Callable[[Path, list[Known]], None]


def refused(place: Path, vocabulary: Vocabulary | None, *words: str, decode: bool = False) -> None:
    def use() -> None:
        data = open_data(place, vocabulary)
        if decode:
            data.batch(np.arange(len(data)))

    with pytest.raises(UserError) as caught:
        use()
    assert str(caught.value).count("\n") == 0
    for word in words:
        assert word in str(caught.value)


def test_folders_without_good_shards(tmp_path: Path, vocabulary: Vocabulary) -> None:
    refused(tmp_path / "none", vocabulary, "no such file")
    refused(tmp_path, vocabulary, "holds no shards")
    (tmp_path / "eval").mkdir()
    write_hdf5(tmp_path / "eval" / "part.hdf5", KNOWN)
    refused(tmp_path, vocabulary, "holds no shards", "eval")
    write_hdf5(tmp_path / "a.hdf5", KNOWN)
    write_tfrecord(tmp_path / "b.tfrecord", KNOWN)
    refused(tmp_path, vocabulary, "a.hdf5 is hdf5, b.tfrecord tfrecord")


@pytest.mark.parametrize("write", [write_hdf5, write_tfrecord])
def test_mixed_lengths(write: Callable[..., None], tmp_path: Path) -> None:
    end = "hdf5" if write is write_hdf5 else "tfrecord"
    write(tmp_path / f"a.{end}", KNOWN)
    write(tmp_path / f"b.{end}", KNOWN, width=64)
    refused(tmp_path, None, f"a.{end} has sequences of 32", f"b.{end} of 64")


def test_mixed_masking_and_binning(tmp_path: Path, vocabulary: Vocabulary) -> None:
    write_parquet(tmp_path / "part.0.parquet", KNOWN)
    write_parquet(tmp_path / "part.1.parquet", KNOWN, static=False)
    refused(tmp_path, vocabulary, "part.0.parquet", "part.1.parquet", "only one is masked")
    (tmp_path / "part.1.parquet").unlink()
    write_parquet(tmp_path / "part.1.parquet_0", KNOWN)
    refused(tmp_path, vocabulary, "only one is binned")


def test_parquet_needs_its_own_vocabulary(tmp_path: Path, vocabulary: Vocabulary) -> None:
    write_parquet(tmp_path / "part.0.parquet", KNOWN)
    refused(tmp_path, None, "needs the vocabulary")
    short = dataclasses.replace(vocabulary, pieces=PIECES[:60])
    refused(tmp_path, short, "part.0.parquet: row ", "is not in", decode=True)
    write_hdf5(tmp_path / "h.h5", KNOWN)
    refused(tmp_path / "h.h5", short, "h.h5: has the id", "60 pieces", decode=True)


def test_damaged_files_are_named(tmp_path: Path, vocabulary: Vocabulary) -> None:
    for name, write in (("a.parquet", write_parquet), ("a.hdf5", write_hdf5), ("a.tfrecord", write_tfrecord)):
        write(tmp_path / name, KNOWN)
        whole = (tmp_path / name).read_bytes()
        (tmp_path / name).write_bytes(whole[: len(whole) * 2 // 3])
        refused(tmp_path / name, vocabulary, name, "cut off", decode=True)
        (tmp_path / name).write_bytes(np.random.default_rng(0).bytes(4000))
        refused(tmp_path / name, vocabulary, name, decode=True)


def test_a_broken_crc_is_named_with_its_offset(tmp_path: Path) -> None:
    path = tmp_path / "a.tfrecord"
    write_tfrecord(path, KNOWN)
    raw = bytearray(path.read_bytes())
    first = struct.unpack_from("<Q", raw)[0] + 16
    raw[first + 12 + 40] ^= 1
    path.write_bytes(raw)
    refused(path, None, f"{path}: the record at byte {first:,} is damaged (CRC)", decode=True)
    raw[first] ^= 1
    path.write_bytes(raw)
    refused(path, None, f"the record at byte {first:,} has a broken length (CRC)")


@pytest.mark.parametrize(
    ("write", "name"),
    [
        (write_hdf5, "next_sentence_labels"),
        (write_packed_hdf5, "next_sentence_weights"),
        (write_packed_hdf5, "positions"),
        (write_packed_hdf5, "next_sentence_positions"),
    ],
)
def test_missing_keys_are_named(write: Write, name: str, tmp_path: Path) -> None:
    write(tmp_path / "a.hdf5", KNOWN)
    with h5py.File(tmp_path / "a.hdf5", "a") as file:
        del file[name]
    refused(tmp_path, None, f"a.hdf5: lacks {name}; it has input_ids")


PLAIN_FAULTS = [
    ("input_mask", (7, 2), 0, "sequence 7: its input_mask is not ones and then zeros"),
    ("input_mask", (7, 2), 3, "sequence 7: its input_mask is not ones and then zeros"),
    ("masked_lm_positions", (5, 0), 31, "sequence 5: a masked position lies behind its end"),
    ("segment_ids", (9, 0), 1, "sequence 9: its second segment is not at its end"),
    ("input_ids", (3, 1), -5, "sequence 3: input_ids has -5, not a number from 0"),
]
PACKED_FAULTS = [
    ("input_mask", (2, 4), 0, "row 2: its input_mask is not the numbers of its sequences and then zeros"),
    ("input_mask", (2, 0), 2, "row 2: its input_mask is not the numbers of its sequences and then zeros"),
    ("input_mask", (2, 1), 9, "row 2: its input_mask is not the numbers of its sequences and then zeros"),
    ("input_mask", (2, ROW - 1), -9, "row 2: its input_mask is not the numbers of its sequences and then zeros"),
    ("input_mask", (2, ROW - 1), 9, "row 2: its input_mask is not the numbers of its sequences and then zeros"),
    ("positions", (3, 2), 0, "row 3: its positions do not start anew with each sequence"),
    ("next_sentence_positions", (3, 1), 1, "row 3: its next_sentence_positions are not where its sequences start"),
    ("next_sentence_weights", (1, 0), 0, "row 1: its next_sentence_weights are not one for each sequence"),
    ("masked_lm_positions", (0, 0), ROW - 1, "row 0: a masked position lies behind its end"),
    ("segment_ids", (4, 0), 1, "row 4: a second segment is not at its sequence's end"),
    ("input_ids", (3, 1), -5, "row 3: input_ids has -5, not a number from 0"),
]


@pytest.mark.parametrize(
    ("write", "name", "place", "value", "fault"),
    [(write_hdf5, *each) for each in PLAIN_FAULTS] + [(write_packed_hdf5, *each) for each in PACKED_FAULTS],
)
def test_rows_that_cannot_be_are_named(
    write: Write, name: str, place: tuple[int, int], value: int, fault: str, tmp_path: Path
) -> None:
    write(tmp_path / "a.hdf5", KNOWN)
    with h5py.File(tmp_path / "a.hdf5", "a") as file:
        file[name][place] = value
    refused(tmp_path, None, fault, decode=True)


def test_a_masked_start_of_a_packed_sequence_is_named(tmp_path: Path) -> None:
    """Unpacked it would be position 0, which pads masked positions: it must not be lost without a word."""
    write_packed_hdf5(tmp_path / "a.hdf5", KNOWN)
    with h5py.File(tmp_path / "a.hdf5", "a") as file:
        file["masked_lm_positions"][0, 0] = file["next_sentence_positions"][0, 1]
    refused(tmp_path, None, "row 0: a sequence's first token is masked", decode=True)


@pytest.mark.parametrize(
    ("cut", "fault"),
    [
        (("next_sentence_weights", 0), "a.tfrecord: has 3 labels a record and lacks next_sentence_weights"),
        (("next_sentence_weights", 2), "a.tfrecord: next_sentence_weights has not 3 values in each record"),
        (("masked_lm_weights", 5), "a.tfrecord: masked_lm_weights has not 18 values in each record"),
        (("positions", 9), "a.tfrecord: positions has not 70 values in each record"),
    ],
)
def test_packed_records_without_what_packing_needs(cut: tuple[str, int], fault: str, tmp_path: Path) -> None:
    write_packed_tfrecord(tmp_path / "a.tfrecord", KNOWN, cut)
    refused(tmp_path, None, fault, decode=True)


def test_padded_and_packed_shards_do_not_mix(tmp_path: Path) -> None:
    write_hdf5(tmp_path / "a.hdf5", KNOWN)
    write_packed_hdf5(tmp_path / "b.hdf5", KNOWN)
    refused(tmp_path, None, "a.hdf5 has sequences of 32, b.hdf5 of 70")
