"""Numbers and types of shards: what a format can spell and no pre-training data means is refused by file and row."""

from __future__ import annotations

import io
import json
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bertkit.data.pretraining import open_data
from bertkit.data.pretraining.formats.checked import RowPlace, reading, whole_numbers
from bertkit.data.pretraining.formats.manifest import load_manifest
from bertkit.data.pretraining.inspection import inspect
from bertkit.errors import UserError
from bertkit.model.vocabulary import Vocabulary
from pretraining_files import (
    CLS,
    MOST,
    PIECES,
    SEP,
    WIDTH,
    Known,
    known_sequences,
    write_dense_hdf5,
    write_hdf5,
    write_packed_hdf5,
    write_parquet,
    write_tfrecord,
)

KNOWN = known_sequences(12)
ID0 = Known((7, 8, 9), (10, 11), True, ((2, 0), (6, 12)))  # the piece with the id 0 is what stood at place 2
Write = Callable[[Path, list[Known]], None]


def fault(place: Path, vocabulary: Vocabulary | None = None) -> str:
    """What is said of data that cannot be: one line."""

    def use() -> None:
        data = open_data(place, vocabulary)
        data.batch(np.arange(len(data)))

    with pytest.raises(UserError) as caught:
        use()
    assert "\n" not in str(caught.value)
    return caught.value.cause


# Ranges


@given(st.lists(st.integers(-(2**63), 2**64 - 1), min_size=1, max_size=8), st.integers(-5, 5), st.integers(0, 2**40))
def test_numbers_come_through_or_are_named(numbers: list[int], least: int, wide: int) -> None:
    most = least + wide
    kind = np.uint64 if max(numbers) >= 2**63 else np.int64
    if kind is np.uint64:
        numbers = [abs(number) for number in numbers]
    values = np.array(numbers, kind)[:, None]
    wrong = [at for at, number in enumerate(numbers) if not least <= number <= most]
    place = RowPlace(Path("f"), 100)
    if not wrong:
        found = whole_numbers(values, "ids", place, least, most)
        assert found.dtype.kind == "i"
        assert found[:, 0].tolist() == numbers
        return
    with pytest.raises(UserError) as caught:
        whole_numbers(values, "ids", place, least, most)
    assert caught.value.cause.startswith(f"f: row {100 + wrong[0]}: ids has {numbers[wrong[0]]}, not a number from")
    among = np.array([at not in wrong for at in range(len(numbers))])[:, None]
    assert len(whole_numbers(values, "ids", place, least, most, among)) == len(numbers)


@pytest.mark.parametrize("kind", [np.float32, np.float64, np.complex64, "S3", "U3", object])
def test_what_holds_no_whole_numbers(kind: Any) -> None:
    with pytest.raises(UserError, match=r"f: ids holds .*, not whole numbers"):
        whole_numbers(np.zeros((2, 2), kind), "ids", RowPlace(Path("f")), 0, 5)


@pytest.mark.parametrize("kind", ["?", "i1", "u1", "<i4", ">i4", "u8", ">u2"])
def test_every_kind_of_whole_number_is_read(kind: str) -> None:
    found = whole_numbers(np.ones((2, 2), kind), "ids", RowPlace(Path("f")), 0, 5)
    assert found.dtype.isnative
    assert (found == 1).all()


def test_a_check_costs_little() -> None:
    ids = np.random.default_rng(0).integers(0, 30_000, (8192, 512)).astype(np.int32)
    start = time.process_time()
    for _ in range(5):
        whole_numbers(ids, "ids", RowPlace(Path("f")), 0, 2**31 - 1)
    assert (time.process_time() - start) / 5 < 0.1  # some 4 ms for 4 million ids; decoding them takes 20 times as long


@pytest.mark.parametrize("error", [OSError("x"), KeyError("x"), AttributeError("x"), RuntimeError("x"), UnicodeError()])
def test_what_a_library_raises_names_the_file(error: Exception) -> None:
    with pytest.raises(UserError, match=r"f: is damaged: ."), reading(Path("f")):
        raise error
    with pytest.raises(UserError, match="more memory than there is"), reading(Path("f")):
        raise MemoryError
    with pytest.raises(KeyboardInterrupt), reading(Path("f")):
        raise KeyboardInterrupt


HDF5_FAULTS = [
    ("input_ids", (4, 1), 2**40, "sequence 4: input_ids has 1099511627776, not a number from 0 to 2,147,483,647"),
    ("masked_lm_ids", (4, 0), 2**40, "sequence 4: masked_lm_ids has 1099511627776, not a number from"),
    ("masked_lm_ids", (4, 0), -7, "sequence 4: its masked_lm_ids hold a number below 0 that is not -1 or -100"),
    ("masked_lm_positions", (4, 0), -7, "sequence 4: masked_lm_positions has -7, not a number from -1"),
    ("masked_lm_positions", (4, 0), 2**40, "sequence 4: masked_lm_positions has 1099511627776"),
    ("segment_ids", (4, 0), 2, "sequence 4: segment_ids has 2, not a number from 0 to 1"),
    ("next_sentence_labels", 4, 7, "sequence 4: its next_sentence_labels are not 0, 1 or -1"),
    ("next_sentence_labels", 4, -3, "sequence 4: its next_sentence_labels are not 0, 1 or -1"),
]


@pytest.mark.parametrize(("name", "place", "value", "said"), HDF5_FAULTS)
def test_numbers_that_cannot_be(name: str, place: tuple[int, int], value: int, said: str, tmp_path: Path) -> None:
    write_hdf5(tmp_path / "a.hdf5", KNOWN)
    with h5py.File(tmp_path / "a.hdf5", "a") as file:
        values = file[name][:].astype(np.int64)
        values[place] = value
        del file[name]
        file[name] = values
    assert said in fault(tmp_path)


@pytest.mark.parametrize("write", [write_hdf5, write_packed_hdf5])
def test_numbers_of_another_kind(write: Write, tmp_path: Path) -> None:
    write(tmp_path / "whole.hdf5", KNOWN)
    with h5py.File(tmp_path / "whole.hdf5") as file:
        arrays = {name: file[name][:] for name in file}
    for name, array in arrays.items():
        for kind in ("f4", "S2"):
            (tmp_path / "a.hdf5").unlink(missing_ok=True)
            with h5py.File(tmp_path / "a.hdf5", "w") as file:
                for each, values in arrays.items():
                    file[each] = array.astype(kind) if each == name else values
            if (name, kind) != ("next_sentence_weights", "f4"):
                assert f"{name} holds " in fault(tmp_path / "a.hdf5")


@pytest.mark.parametrize("weight", [np.nan, 0.5, -1, np.inf])
def test_weights_that_cannot_be(weight: float, tmp_path: Path) -> None:
    write_hdf5(tmp_path / "a.hdf5", KNOWN)
    with h5py.File(tmp_path / "a.hdf5", "a") as file:
        weights = (file["masked_lm_positions"][:] > 0).astype(np.float32)
        file["masked_lm_weights"] = weights
    open_data(tmp_path).batch(np.arange(12))
    with h5py.File(tmp_path / "a.hdf5", "a") as file:
        file["masked_lm_weights"][3, 0] = weight
    assert "sequence 3: its masked_lm_weights are not 0 or 1" in fault(tmp_path)


# [PAD] is known by weight and position


def with_weights(path: Path, known: list[Known]) -> None:
    write_hdf5(path, known)
    with h5py.File(path, "a") as file:
        file["masked_lm_weights"] = (file["masked_lm_positions"][:] > 0).astype(np.float32)


ZERO_IS_A_PIECE: dict[str, Write] = {
    "a.hdf5": write_hdf5,
    "weights.hdf5": with_weights,
    "dense1.hdf5": lambda path, known: write_dense_hdf5(path, known, -1),
    "dense100.hdf5": lambda path, known: write_dense_hdf5(path, known, -100),
    "a.tfrecord": write_tfrecord,
    "b.tfrecord": lambda path, known: write_tfrecord(path, known, False),
    "p.hdf5": write_packed_hdf5,
    "part.0.parquet": write_parquet,
}


@pytest.mark.parametrize("name", ZERO_IS_A_PIECE)
def test_the_piece_with_the_id_0_is_a_target_as_any_other(name: str, tmp_path: Path) -> None:
    """tests/pretraining_files.py calls it [PAD]; another vocabulary has [UNK] or a word there."""
    ZERO_IS_A_PIECE[name](tmp_path / name, [ID0, *KNOWN])
    batch = open_data(tmp_path, Vocabulary(Path("v"), PIECES, True)).batch(np.array([0]))
    assert batch["masked_positions"].tolist() == [2, 6]
    assert batch["masked_labels"].tolist() == [0, 12]


def test_a_dense_label_at_cls_is_refused(tmp_path: Path) -> None:
    write_dense_hdf5(tmp_path / "a.hdf5", KNOWN, -1)
    with h5py.File(tmp_path / "a.hdf5", "a") as file:
        file["labels"][2, 0] = 9
    assert "sequence 2: a sequence's first token is masked" in fault(tmp_path)


def test_inspect_tells_what_it_measured(tmp_path: Path, vocabulary: Vocabulary) -> None:
    few = [replace(one, masks=one.masks[:2]) for one in KNOWN]
    write_hdf5(tmp_path / "a.hdf5", few)
    found = inspect(open_data(tmp_path, vocabulary), None, vocabulary, 0, lambda *_: None)
    assert found.masks is not None
    assert found.masks.most == max(len(one.masks) for one in few) < MOST


# HDF5 that is no shard


def damaged(path: Path, spoil: Callable[[Any], None]) -> Path:
    write_hdf5(path, KNOWN)
    with h5py.File(path, "a") as file:
        spoil(file)
    return path


def made_group(file: Any) -> None:
    del file["segment_ids"]
    file.create_group("segment_ids")


def made_single(file: Any) -> None:
    del file["segment_ids"]
    file["segment_ids"] = 5


def made_empty(file: Any) -> None:
    del file["segment_ids"]
    file["segment_ids"] = h5py.Empty("i4")


def made_huge(file: Any) -> None:
    for name in ("input_ids", "input_mask", "segment_ids"):
        del file[name]
        file.create_dataset(name, (12, 300_000_000), "i1", chunks=(1, 1024))


def made_link(file: Any) -> None:
    del file["segment_ids"]
    file["segment_ids"] = h5py.ExternalLink("other.hdf5", "segment_ids")


def made_type(file: Any) -> None:
    del file["segment_ids"]
    file["segment_ids"] = np.dtype("i4")


HDF5: dict[str, tuple[Callable[[Any], None], str]] = {
    "group": (made_group, "segment_ids is not an array in this file"),
    "0-d": (made_single, "segment_ids has () rows, input_ids (12,)"),
    "empty": (made_empty, "segment_ids is not an array in this file"),
    "huge": (made_huge, "bytes can hold"),
    "link": (made_link, "segment_ids is not an array in this file"),
    "type": (made_type, "segment_ids is not an array in this file"),
}


@pytest.mark.parametrize("name", HDF5)
def test_hdf5_that_is_no_shard(name: str, tmp_path: Path) -> None:
    spoil, said = HDF5[name]
    assert said in fault(damaged(tmp_path / "a.hdf5", spoil))


@pytest.mark.parametrize("seed", range(3))
def test_flipped_bytes_of_any_format_are_named_or_harmless(seed: int, tmp_path: Path, vocabulary: Vocabulary) -> None:
    stream = np.random.default_rng(seed)
    for name, write in (("a.hdf5", write_hdf5), ("a.parquet", write_parquet), ("a.tfrecord", write_tfrecord)):
        write(tmp_path / name, KNOWN)
        whole = (tmp_path / name).read_bytes()
        for _ in range(40):
            raw = bytearray(whole)
            for at in stream.integers(0, len(raw), stream.integers(1, 4)):
                raw[at] ^= 1 << int(stream.integers(8))
            (tmp_path / name).write_bytes(raw)
            try:
                data = open_data(tmp_path / name, vocabulary)
                data.batch(np.arange(len(data)))
            except UserError as error:
                assert "\n" not in str(error)  # noqa: PT017 - loading unharmed is right, too


# Parquet's types


def parquet(folder: Path, change: Callable[[dict[str, Any]], None]) -> Path:
    write_parquet(folder / "whole.parquet", KNOWN)
    table = pq.read_table(folder / "whole.parquet")
    columns = {name: table[name].combine_chunks() for name in table.column_names}
    change(columns)
    (folder / "whole.parquet").unlink()
    pq.write_table(pa.table(columns), folder / "part.0.parquet")
    return folder


def as_lists(column: Any) -> Any:
    return pa.array([text.split(" ") if text else [] for text in column.to_pylist()])


def unsaved(column: Any) -> list[list[int]]:
    return [np.load(io.BytesIO(cell)).tolist() for cell in column.to_pylist()]


SAME: dict[str, tuple[tuple[str, ...], Callable[[Any], Any]]] = {
    "dictionary": (("A", "B", "masked_lm_labels"), lambda column: column.dictionary_encode()),
    "dictionary of bytes": (("masked_lm_positions",), lambda column: column.dictionary_encode()),
    "large_string": (("A", "B", "masked_lm_labels"), lambda column: column.cast(pa.large_string())),
    "string_view": (("A", "B", "masked_lm_labels"), lambda column: column.cast(pa.string_view())),
    "binary_view": (("masked_lm_positions",), lambda column: column.cast(pa.binary_view())),
    "large_binary": (("masked_lm_positions",), lambda column: column.cast(pa.large_binary())),
    "list": (("A", "B", "masked_lm_labels"), as_lists),
    "large_list": (("A", "B"), lambda column: as_lists(column).cast(pa.large_list(pa.string()))),
    "list of numbers": (("masked_lm_positions",), lambda column: pa.array(unsaved(column), pa.list_(pa.int16()))),
    "uint64": (("num_tokens",), lambda column: column.cast(pa.uint64())),
    "int8": (("num_tokens",), lambda column: column.cast(pa.int8())),
    "dictionary of numbers": (("num_tokens",), lambda column: column.dictionary_encode()),
    "0 and 1": (("is_random_next",), lambda column: column.cast(pa.int8())),
}


@pytest.mark.parametrize("name", SAME)
def test_every_type_of_arrow_that_holds_the_same(name: str, tmp_path: Path, vocabulary: Vocabulary) -> None:
    changed, change = SAME[name]
    wanted = open_data(parquet(tmp_path, lambda columns: None), vocabulary).batch(np.arange(12))
    data = open_data(
        parquet(tmp_path, lambda columns: columns.update({each: change(columns[each]) for each in changed})), vocabulary
    )
    found = data.batch(np.arange(12))
    assert all(np.array_equal(found[key], wanted[key]) for key in wanted)
    assert data.longest == max(len(one.ids) for one in KNOWN)


def test_fixed_size_lists_and_a_column_of_nulls(tmp_path: Path, vocabulary: Vocabulary) -> None:
    table = {
        "A": pa.array([["word1", "word2"], ["word3", "##a"]], pa.list_(pa.string(), 2)),
        "B": pa.nulls(2),
        "is_random_next": pa.nulls(2),
        "num_tokens": pa.array([4, 4]),
    }
    pq.write_table(pa.table(table), tmp_path / "part.0.parquet")
    batch = open_data(tmp_path, vocabulary).at(0).decoded.get(0)
    assert batch.input_ids.tolist() == [CLS, 6, 7, SEP, CLS, 8, PIECES.index("##a"), SEP]
    assert batch.labels.tolist() == [-100, -100]


REFUSED: dict[str, tuple[str, Callable[[Any], Any], str]] = {
    "A of numbers": ("A", lambda c: pa.array(range(12)), "the column A holds int64, not texts"),
    "A of lists of numbers": ("A", lambda c: pa.array([[1]] * 12), "the column A holds large_list"),
    "B of bytes": ("B", lambda c: c.cast(pa.binary()), "the column B holds binary, not texts"),
    "num_tokens with a point": ("num_tokens", lambda c: c.cast(pa.float32()), "the column num_tokens holds float"),
    "num_tokens missing": ("num_tokens", lambda c: pa.array([None, *c.to_pylist()[1:]]), "row 0: num_tokens is"),
    "num_tokens wrong": ("num_tokens", lambda c: pa.array([2**40, *c.to_pylist()[1:]]), "row 0: num_tokens has 1"),
    "is_random_next of texts": ("is_random_next", lambda c: c.cast(pa.string()), "the column is_random_next holds"),
    "is_random_next 2": ("is_random_next", lambda c: pa.array([2] * 12), "row 0: is_random_next has 2, not a number"),
    "is_random_next missing": ("is_random_next", lambda c: pa.nulls(12), "row 0: is_random_next is missing"),
    "positions of texts": ("masked_lm_positions", lambda c: pa.array(["x"] * 12), "the column masked_lm_positions"),
    "positions missing": ("masked_lm_positions", lambda c: pa.nulls(12, pa.binary()), "row 0: masked_lm_positions is"),
    "positions damaged": ("masked_lm_positions", lambda c: pa.array([b"x"] * 12), "row 0: its masked positions are"),
    "positions too many": (
        "masked_lm_positions", lambda c: pa.array([[1] * 9, *unsaved(c)[1:]]), "row 0: masked_lm_positions has 9"
    ),
    "positions twice": (
        "masked_lm_positions",
        lambda c: pa.array([[1] * len(cell) for cell in unsaved(c)]),
        "a position is masked twice",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_columns_of_other_types_are_named(name: str, tmp_path: Path, vocabulary: Vocabulary) -> None:
    column, change, said = REFUSED[name]
    place = parquet(tmp_path, lambda columns: columns.update({column: change(columns[column])}))
    assert said in fault(place, vocabulary)


# The manifest

MANIFEST: dict[str, Any] = {
    "manifest": 1, "settings": {"seed": 1}, "documents": 1, "sentences": 2, "tokens": 3, "sequences": 12,
    "most_masked": 6, "notes": {"cut": 1}, "sources": [{"name": "a", "bytes": 1, "format": "raw", "sha256": "x"}],
    "shards": [{"name": "a.hdf5", "sequences": 12, "tokens": 4, "masked": 1, "bytes": 3619, "sha256": "x"}],
}  # fmt: skip
BAD_MANIFESTS: dict[str, dict[str, Any]] = {
    "settings is a text": {"settings": "x"},
    "settings.seed is a list": {"settings": {"seed": [1]}},
    "documents is -1": {"documents": -1},
    "tokens is 3.5": {"tokens": 3.5},
    "notes, 'cut' is '1'": {"notes": {"cut": "1"}},
    "shards is null": {"shards": None},
    "shards[0] is a number": {"shards": [1]},
    "shards[0]: name is a number": {"shards": [MANIFEST["shards"][0] | {"name": 1}]},
    "shards[0]: bytes is '3619'": {"shards": [MANIFEST["shards"][0] | {"bytes": "3619"}]},
    "shards[0]: has an unknown more": {"shards": [MANIFEST["shards"][0] | {"more": 1}]},
    "sources[0]: lacks bytes": {"sources": [{"name": "a", "format": "raw", "sha256": "x"}]},
    "is of another version": {"manifest": 2},
}


@pytest.mark.parametrize("said", BAD_MANIFESTS)
def test_manifests_that_cannot_be(said: str, tmp_path: Path) -> None:
    path = tmp_path / "manifest.json"
    path.write_text(json.dumps(MANIFEST))
    assert load_manifest(path).shards[0].sequences == 12
    path.write_text(json.dumps(MANIFEST | BAD_MANIFESTS[said]))
    with pytest.raises(UserError) as caught:
        load_manifest(path)
    assert said in caught.value.cause


def test_shards_are_held_against_their_manifest(tmp_path: Path) -> None:
    write_hdf5(tmp_path / "a.hdf5", KNOWN)
    entry = MANIFEST["shards"][0] | {"bytes": (tmp_path / "a.hdf5").stat().st_size}
    path = tmp_path / "manifest.json"
    path.write_text(json.dumps(MANIFEST | {"shards": [entry]}))
    open_data(tmp_path).batch(np.arange(12))
    path.write_text(json.dumps(MANIFEST | {"shards": [entry | {"sequences": 11}]}))
    assert "has 12 sequences, manifest.json says 11" in fault(tmp_path)
    path.write_text(json.dumps(MANIFEST | {"shards": [entry], "most_masked": 2}))
    assert "should mask 2 positions at the most" in fault(tmp_path)


def test_odd_names_of_shards_and_what_is_no_folder(tmp_path: Path) -> None:
    for number in ("9" * 30, "²", "٣"):
        write_hdf5(tmp_path / f"part_{number}.hdf5", KNOWN)
    assert len(open_data(tmp_path)) == 36
    assert open_data(tmp_path).longest == WIDTH
