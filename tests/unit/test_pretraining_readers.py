"""Pre-training data: every format and convention gives the same batches."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bertkit.data.pretraining import MaskingRule, PretrainingData, open_data
from bertkit.data.pretraining.formats.rows import NO_LABEL
from bertkit.data.pretraining.formats.tf_example import decode_varints, encode_varints, masked_crc
from bertkit.model.vocabulary import Vocabulary
from pretraining_files import (
    MASK,
    MOST,
    PIECES,
    ROW,
    WIDTH,
    Known,
    known_sequences,
    write_dense_hdf5,
    write_hdf5,
    write_packed_hdf5,
    write_packed_tfrecord,
    write_parquet,
    write_tfrecord,
)
from tfrecord_reader import read_tfrecord

KNOWN = known_sequences(40)
Write = Callable[[Path, list[Known]], None]
WAYS: dict[str, tuple[str, Write]] = {
    "parquet": ("part.{}.parquet", write_parquet),
    "hdf5, 0": ("part_{}_of_2.hdf5", write_hdf5),
    "hdf5, -1": ("part_{}.h5", lambda path, known: write_hdf5(path, known, ignored=-1)),
    "hdf5, -100, gzip": ("part_{}.hdf5", lambda path, known: write_hdf5(path, known, -100, compression="gzip")),
    "hdf5, dense, 0": ("part_{}.hdf5", lambda path, known: write_dense_hdf5(path, known, 0)),
    "hdf5, dense, -1": ("part_{}.hdf5", lambda path, known: write_dense_hdf5(path, known, -1)),
    "hdf5, dense, -100": ("part_{}.hdf5", lambda path, known: write_dense_hdf5(path, known, -100)),
    "hdf5, packed": ("mixed_strategies_part_{}.hdf5", write_packed_hdf5),
    "tfrecord": ("part-{:05d}.tfrecord", write_tfrecord),
    "tfrecord, packed": ("strategy_{}.tfrecord", write_packed_tfrecord),
    "tfrecord, no weights": ("a.tfrecord-{:05d}-of-00002", lambda path, known: write_tfrecord(path, known, False)),
}


def assert_are(data: PretrainingData, known: list[Known], examples: np.ndarray) -> None:
    """The batch of these examples holds exactly these sequences."""
    batch = data.batch(examples)
    wanted = [known[number] for number in examples]
    starts = np.cumsum([0, *(len(one.ids) for one in wanted)])
    assert batch["cu_seqlens"].tolist() == starts.tolist()
    assert batch["input_ids"].tolist() == [id for one in wanted for id in one.ids]
    assert batch["token_type_ids"].tolist() == [type for one in wanted for type in one.types]
    assert batch["labels"].tolist() == [int(one.random) for one in wanted]
    masks = [(start + place, label) for start, one in zip(starts, wanted, strict=False) for place, label in one.masks]
    assert list(zip(batch["masked_positions"].tolist(), batch["masked_labels"].tolist(), strict=True)) == masks
    assert batch["example_ids"].tolist() == examples.tolist()
    assert data.lengths_of(examples).tolist() == [len(one.ids) for one in wanted]
    assert data.masked_counts(examples).tolist() == [len(one.masks) for one in wanted]
    dtypes = {name: array.dtype for name, array in batch.items()}
    assert {dtypes.pop(name) for name in ("input_ids", "token_type_ids", "cu_seqlens")} == {np.dtype(np.int32)}
    assert set(dtypes.values()) == {np.dtype(np.int64)}


@pytest.mark.parametrize("way", WAYS)
def test_every_format_gives_the_same_batches(way: str, tmp_path: Path, vocabulary: Vocabulary) -> None:
    name, write = WAYS[way]
    for shard, part in enumerate((KNOWN[:25], KNOWN[25:])):
        write(tmp_path / name.format(shard), part)
    data = open_data(tmp_path, vocabulary)
    assert len(data) == 40
    assert data.longest <= (ROW if "packed" in way else WIDTH)
    assert data.lengths.tolist() == [len(one.ids) for one in KNOWN]
    assert_are(data, KNOWN, np.random.default_rng(1).permutation(40))
    assert_are(data, KNOWN, np.array([39, 0]))
    assert_are(data, KNOWN, np.empty(0, np.int64))  # a rank may have nothing to do
    assert not data.dynamic
    assert data.most_masked >= max(len(one.masks) for one in KNOWN)


def test_shards_are_numbered_by_the_numbers_in_their_names(tmp_path: Path, vocabulary: Vocabulary) -> None:
    for shard in range(12):
        write_hdf5(tmp_path / f"part_{shard}_of_12.hdf5", KNOWN[3 * shard : 3 * shard + 3])
    (tmp_path / ".num_samples.json").write_text("{}")
    assert_are(open_data(tmp_path), KNOWN, np.arange(36))
    assert_are(open_data(tmp_path / "part_1_of_12.hdf5"), KNOWN[3:6], np.arange(3))


def test_few_decoded_shards_serve_all(tmp_path: Path) -> None:
    for shard in range(10):
        write_tfrecord(tmp_path / f"{shard}.tfrecord", KNOWN[4 * shard : 4 * shard + 4])
    data = open_data(tmp_path)
    data.decoded.keep = 9
    for seed in range(3):
        assert_are(data, KNOWN, np.random.default_rng(seed).permutation(40))
    assert sum(map(len, data.decoded.rows.values())) <= 9


def test_a_row_without_b_has_no_next_sentence(tmp_path: Path, vocabulary: Vocabulary) -> None:
    write_parquet(tmp_path / "part.0.parquet", [Known((7, 8, 9), (), False, ((2, 20),)), Known((6,), (5,), True, ())])
    for said in (5, 6):  # with one [SEP] or two, as LDDL would count
        import pyarrow.parquet as pq

        table = pq.read_table(tmp_path / "part.0.parquet")
        table = table.set_column(3, table.schema.field(3), [np.array([said, 5], np.uint16)])
        pq.write_table(table, tmp_path / "part.0.parquet")
        batch = open_data(tmp_path, vocabulary).batch(np.arange(2))
        assert batch["input_ids"].tolist() == [2, 7, 8, 9, 3, 2, 6, 3, 5, 3]
        assert batch["token_type_ids"].tolist() == [0] * 8 + [1, 1]
        assert batch["labels"].tolist() == [NO_LABEL, 1]


# Dynamic masking


@pytest.fixture(scope="module")
def dynamic(tmp_path_factory: pytest.TempPathFactory, vocabulary: Vocabulary) -> PretrainingData:
    folder = tmp_path_factory.mktemp("dynamic")
    for bin in (0, 1):
        write_parquet(folder / f"part.0.parquet_{bin}", known_sequences(300, bin), static=False, bin=bin)
    return open_data(folder, vocabulary, rule=MaskingRule(0.3, MOST), seed=3)


@pytest.mark.parametrize("whole_words", [False, True])
def test_masks_do_not_depend_on_the_batch(dynamic: PretrainingData, whole_words: bool) -> None:
    data = dataclasses.replace(dynamic, rule=MaskingRule(0.3, MOST, whole_words))
    whole = data.batch(np.arange(600))
    some = np.random.default_rng(0).permutation(600)[:17]
    batch = data.batch(some)
    counts = data.masked_counts(some)
    assert counts.tolist() == np.histogram(batch["masked_positions"], batch["cu_seqlens"])[0].tolist()
    for row, number in enumerate(some):
        for name in ("input_ids",):
            mine = batch[name][slice(*batch["cu_seqlens"][row : row + 2])]
            assert np.array_equal(mine, whole[name][slice(*whole["cu_seqlens"][number : number + 2])])
    assert int(data.masked_counts(np.arange(600)).sum()) == len(whole["masked_labels"])


def test_masks_change_with_epoch_and_seed_and_hide_what_stood_there(dynamic: PretrainingData) -> None:
    bare = dynamic.decoded.get(0)
    seen = set()
    for data in (dynamic, dynamic.at(1), dataclasses.replace(dynamic, seed=4)):
        batch = data.batch(np.arange(300))
        restored = batch["input_ids"].copy()
        restored[batch["masked_positions"]] = batch["masked_labels"]
        assert np.array_equal(restored, bare.input_ids)
        assert (bare.input_ids[batch["masked_positions"]] > MASK).all()
        seen.add(batch["masked_positions"].tobytes())
    assert len(seen) == 3
    assert np.array_equal(
        dynamic.at(1).batch(np.arange(9))["input_ids"], dynamic.at(1).batch(np.arange(9))["input_ids"]
    )


def test_masks_have_the_published_shares(dynamic: PretrainingData) -> None:
    fates = np.zeros(3)
    for epoch in range(20):
        batch = dynamic.at(epoch).batch(np.arange(600))
        shown = batch["input_ids"][batch["masked_positions"]]
        fates += [np.sum(shown == MASK), np.sum(shown == batch["masked_labels"]), len(shown)]
    assert fates[2] > 30_000
    assert abs(fates[0] / fates[2] - 0.8 - 0.1 / len(PIECES)) < 0.01
    assert abs(fates[1] / fates[2] - 0.1 - 0.1 / len(PIECES)) < 0.01


def test_whole_words_are_hidden_as_a_whole(dynamic: PretrainingData) -> None:
    data = dataclasses.replace(dynamic, rule=MaskingRule(0.3, MOST, whole_words=True))
    bare, batch = data.decoded.get(0), data.batch(np.arange(300))
    goes_on = np.array([piece.startswith("##") for piece in PIECES])[bare.input_ids]
    hidden = np.zeros(len(goes_on), bool)
    hidden[batch["masked_positions"]] = True
    before = np.roll(bare.input_ids, 1) > MASK  # a piece before it to continue
    inside = goes_on & before
    assert inside.sum() > 100
    assert np.array_equal(hidden[inside], np.roll(hidden, 1)[inside])
    assert (data.masked_counts(np.arange(300)) <= data.rule.counts(bare.lengths)).all()
    assert hidden.sum() > 0.8 * data.rule.counts(bare.lengths).sum()


def test_dynamic_masking_takes_the_shards_own_masks_off(tmp_path: Path, vocabulary: Vocabulary) -> None:
    write_hdf5(tmp_path / "a.hdf5", KNOWN)
    batch = open_data(tmp_path, vocabulary, "dynamic").batch(np.arange(40))
    bare = [id for one in KNOWN for id in (dict(one.masks).get(place, id) for place, id in enumerate(one.ids))]
    restored = batch["input_ids"].copy()
    restored[batch["masked_positions"]] = batch["masked_labels"]
    assert restored.tolist() == bare


# TFRecord by itself


@settings(deadline=None, max_examples=100)
@given(st.lists(st.integers(0, 2**63 - 1), max_size=40))
def test_varints_return(values: list[int]) -> None:
    packed, sizes = encode_varints(np.array(values, np.uint64))
    found, ends = decode_varints(packed)
    assert found.tolist() == values
    assert np.diff(ends, prepend=0).tolist() == sizes.tolist()


def test_another_reader_reads_our_records(tmp_path: Path) -> None:
    write_tfrecord(tmp_path / "a.tfrecord", KNOWN, weights=False)
    for record, one in zip(read_tfrecord(tmp_path / "a.tfrecord"), KNOWN, strict=True):
        assert record["input_ids"][: len(one.ids)] == one.ids
        assert record["next_sentence_labels"] == [int(one.random)]


def test_the_crc_is_the_published_one() -> None:
    assert masked_crc(b"123456789") == ((0xE3069283 >> 15 | 0xE3069283 << 17) + 0xA282EAD8) & 0xFFFFFFFF  # RFC 3720


def test_the_real_shards_hold_the_same_sequences(real_data: Path) -> None:
    """Made by Google's program, and an HDF5 file derived from it."""
    google = open_data(real_data / "tfrecord" / "pretrain_sample_text_biaoliu.tfrecord")
    derived = open_data(real_data / "hdf5")
    assert (len(google), google.longest, google.most_masked) == (60, 128, 20)
    mine, other = google.batch(np.arange(60)), derived.batch(np.arange(60))
    for name, array in mine.items():
        assert np.array_equal(array, other[name]), name
    record = next(read_tfrecord(real_data / "tfrecord" / "pretrain_sample_text_biaoliu.tfrecord"))
    length = sum(record["input_mask"])
    assert mine["input_ids"][:length].tolist() == record["input_ids"][:length]
    assert re.fullmatch(r"[0-9a-f]{64}", google.digest())
    assert google.digest() != derived.digest()
