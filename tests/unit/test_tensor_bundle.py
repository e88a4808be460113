"""TensorFlow 1's checkpoint files: what TensorFlow wrote is read and written again to the byte; damage has one line."""

from __future__ import annotations

import itertools
import math
import os
import struct
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import tf1_bundles
from bertkit.errors import UserError
from bertkit.model.formats import tf1_table
from bertkit.model.formats.tf1_bundle import NUMBERS, read_bundle, read_index, slice_key, write_bundle
from bertkit.model.formats.tf1_table import (
    Damaged,
    Unsupported,
    masked_crc,
    read_table,
    read_varint,
    varint,
    write_table,
)

FILES = (".index", ".data-00000-of-00001")
keys = st.binary(max_size=12)
tables = st.dictionaries(keys, st.binary(max_size=40), max_size=60)


@pytest.fixture
def written(tmp_path: Path) -> Path:
    """A small checkpoint's prefix."""
    prefix = tmp_path / "model.ckpt"
    write_bundle(prefix, {"a/kernel": np.arange(6, dtype=np.float32).reshape(2, 3), "b": np.array(7, np.int64)})
    return prefix


def file(prefix: Path, ending: str) -> Path:
    return prefix.with_name(prefix.name + ending)


def test_what_tensorflow_wrote_is_written_again_to_the_byte(real_data: Path, tmp_path: Path) -> None:
    theirs, ours = real_data / "tf1" / "keras_bert_fixture" / "bert_model.ckpt", tmp_path / "bert_model.ckpt"
    arrays = read_bundle(read_index(theirs))
    assert len(arrays) == 139
    assert arrays["global_step"] == 20
    write_bundle(ours, arrays)
    for ending in FILES:
        assert file(ours, ending).read_bytes() == file(theirs, ending).read_bytes()


def test_a_real_models_index_is_read(real_data: Path) -> None:
    index = read_index(real_data / "tf1" / "uncased_base_names" / "bert_model.ckpt")
    assert index.entries["bert/embeddings/word_embeddings"].shape == (30522, 512)
    assert index.shard(0).name == "bert_model.ckpt.data-00000-of-00001"


@given(st.integers(0, 2**64 - 1), st.binary(max_size=3))
def test_numbers_survive(number: int, rest: bytes) -> None:
    assert read_varint(varint(number) + rest, 0) == (number, len(varint(number)))


@given(tables, st.sampled_from([1, 60, 400, 262144]))
def test_a_table_survives_in_blocks_of_any_size(table: dict[bytes, bytes], block: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tf1_table, "BLOCK", block)
        data = write_table(sorted(table.items()))
    assert list(read_table(data).items()) == sorted(table.items())


@given(tables, st.data())
def test_a_damaged_table_is_never_taken_for_whole(table: dict[bytes, bytes], draw: st.DataObject) -> None:
    data = bytearray(write_table(sorted(table.items())))
    place = draw.draw(st.integers(0, len(data) - 1))
    data[place] ^= draw.draw(st.integers(1, 255))
    try:
        found = read_table(bytes(data))
    except Damaged:
        return
    assert found == table  # the padding of the footer means nothing


@given(st.binary(max_size=200))
def test_bytes_that_are_no_table_are_refused(data: bytes) -> None:
    with pytest.raises(Damaged):
        read_table(data + struct.pack("<Q", tf1_table.MAGIC))


@st.composite
def arrays(draw: st.DrawFn) -> np.ndarray:
    dtype = draw(st.sampled_from(sorted(NUMBERS, key=str)))
    shape = tuple(draw(st.lists(st.integers(0, 4), max_size=3)))
    size = int(np.prod(shape)) * dtype.itemsize
    raw = draw(st.binary(min_size=size, max_size=size))
    raw = bytes(byte & 1 for byte in raw) if dtype == np.bool_ else raw
    return np.frombuffer(raw, dtype).reshape(shape)


@settings(max_examples=60)
@given(st.dictionaries(st.text(min_size=1, max_size=8), arrays(), min_size=1, max_size=8))
def test_arrays_survive_bit_for_bit(tmp_path_factory: pytest.TempPathFactory, written: dict[str, np.ndarray]) -> None:
    prefix = tmp_path_factory.mktemp("bundle") / "x"
    write_bundle(prefix, written)
    back = read_bundle(read_index(prefix))
    assert list(back) == sorted(written, key=str.encode)
    for name, array in written.items():
        assert (back[name].dtype, back[name].shape) == (array.dtype, array.shape)
        assert back[name].tobytes() == array.tobytes()


def test_a_data_shard_that_is_cut_off(written: Path) -> None:
    shard = file(written, FILES[1])
    shard.write_bytes(shard.read_bytes()[:-1])
    with pytest.raises(UserError, match=r"model.ckpt.data-00000-of-00001: is cut off: it has 31 bytes, but b ends at"):
        read_bundle(read_index(written))


def test_a_value_that_was_changed(written: Path) -> None:
    shard = file(written, FILES[1])
    shard.write_bytes(bytes([1]) + shard.read_bytes()[1:])
    with pytest.raises(UserError, match="a/kernel, from byte 0, does not match its CRC"):
        read_bundle(read_index(written))
    assert set(read_bundle(read_index(written), lambda name: name == "b")) == {"b"}


def test_a_missing_shard(written: Path) -> None:
    file(written, FILES[1]).unlink()
    with pytest.raises(UserError, match=r"data-00000-of-00001: cannot be read: No such file .* the index asks for it"):
        read_bundle(read_index(written))


def test_a_missing_index(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"absent.index: cannot be read: No such file"):
        read_index(tmp_path / "absent")


@pytest.mark.parametrize("cut", [1, 40, 100])
def test_an_index_that_is_cut_off(written: Path, cut: int) -> None:
    index = file(written, FILES[0])
    index.write_bytes(index.read_bytes()[:-cut])
    with pytest.raises(UserError, match=r"model.ckpt.index: is damaged or no TensorFlow checkpoint's index"):
        read_index(written)


def message(number: int, kind: int, value: bytes) -> bytes:
    return varint(number << 3 | kind) + value


HEADER = b"\x08\x01\x1a\x02\x08\x01"


@pytest.mark.parametrize(
    ("table", "words"),
    [
        ({b"": HEADER + message(2, 0, b"\1")}, "big-endian"),
        ({b"": b""}, "there are 0 data shards"),
        ({b"": HEADER, b"x": message(1, 0, b"\1") + message(7, 0, b"\1")}, "a slice is a number"),
        (
            {b"": HEADER, b"x": message(1, 0, b"\1") + message(2, 2, b"\x0d\x12\x0b\x08" + b"\xff" * 9 + b"\1")},
            "unknown number or size",
        ),
        (
            {b"": HEADER, b"x": message(1, 0, b"\1") + message(7, 2, b"\x0d\x0a\x0b\x10" + b"\xff" * 9 + b"\1")},
            "a slice begins or ends nowhere",
        ),
        ({b"": HEADER, b"x": message(1, 0, b"\1") + message(5, 0, b"\5")}, r"x of shape \(\) has 5 bytes"),
        ({b"": HEADER, b"x": message(2, 2, b"\5a")}, "a field reaches beyond its message"),
        ({b"": HEADER, b"x": message(2, 3, b"")}, "wire type 3"),
        ({b"": HEADER, b"\xff": b""}, "index: is damaged"),
        ({b"": HEADER, b"_CHECKPOINTABLE_OBJECT_GRAPH": b""}, "object-based checkpoint of TensorFlow 2"),
    ],
)
def test_what_is_not_read_is_named(table: dict[bytes, bytes], words: str, tmp_path: Path) -> None:
    (tmp_path / "x.index").write_bytes(write_table(sorted(table.items())))
    with pytest.raises(UserError, match=words) as caught:
        read_index(tmp_path / "x")
    assert "\n" not in str(caught.value)


def test_a_compressed_block_is_refused() -> None:
    data = bytearray(write_table([(b"", HEADER)]))
    size = len(b"\0\0\6" + HEADER) + 8
    data[size] = 1
    data[size + 1 : size + 5] = struct.pack("<I", masked_crc(bytes(data[: size + 1])))
    with pytest.raises(Unsupported, match="compressed"):
        read_table(bytes(data))


def test_keys_that_grow_at_every_entry_do_not_fill_the_memory() -> None:
    """Each key repeats the one before and adds a byte: 100,000 of them would have 5 GB."""
    table = tf1_table._Block(1 << 30)
    for number in range(100_000):
        table.entries += varint(number) + varint(1) + varint(0) + b"a"
    made = bytearray()
    handle = tf1_table._put(made, table)
    index = tf1_table._Block(1)
    index.add(b"b", handle)
    footer = tf1_table._put(made, tf1_table._Block(1)) + tf1_table._put(made, index)
    data = bytes(made) + footer.ljust(40, b"\0") + struct.pack("<Q", tf1_table.MAGIC)
    with pytest.raises(Damaged, match="its keys are far longer than the file"):
        read_table(data)


def test_a_block_that_is_named_twice_is_damage() -> None:
    made = bytearray()
    block = tf1_table._Block(1)
    block.add(b"a", b"1")
    handle = tf1_table._put(made, block)
    index = tf1_table._Block(1)
    index.add(b"a", handle)
    index.add(b"b", handle)
    footer = tf1_table._put(made, tf1_table._Block(1)) + tf1_table._put(made, index)
    with pytest.raises(Damaged, match="its keys are not in order"):
        read_table(bytes(made) + footer.ljust(40, b"\0") + struct.pack("<Q", tf1_table.MAGIC))


def test_the_checksum_is_the_published_one() -> None:
    assert masked_crc(b"") == 0xA282EAD8
    crc = 0xE3069283  # of "123456789" (RFC 3720)
    assert masked_crc(b"123456789") == ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


def test_bfloat16_is_widened(written: Path) -> None:
    entry = message(1, 0, b"\x0e") + message(2, 2, b"\4\x12\2\x08\1") + message(5, 0, b"\2")
    bits = np.array([0x3FC0], "<u2").tobytes()  # 1.5
    entry += message(6, 5, struct.pack("<I", masked_crc(bits)))
    file(written, FILES[0]).write_bytes(write_table([(b"", HEADER), (b"x", entry)]))
    file(written, FILES[1]).write_bytes(bits)
    assert read_bundle(read_index(written))["x"].tolist() == [1.5]


def test_a_dtype_without_a_number_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="x is of dtype complex64"):
        write_bundle(tmp_path / "x", {"x": np.zeros(1, np.complex64)})
    assert list(tmp_path.iterdir()) == []


@given(st.integers(-(2**63), 2**63 - 1))
def test_the_numbers_in_a_slices_key_sort_as_numbers_do(number: int) -> None:
    assert slice_key("x", ((number, -1),)) == tf1_bundles.key("x", [(number, -1)])


def test_the_numbers_in_a_slices_key_are_those_of_tensorflows_own_examples() -> None:
    start = b"\0x\0\1\1\1"
    assert slice_key("x", ((0x424242, -0x800),)) == start + bytes.fromhex("f0424242") + bytes.fromhex("3800")
    assert slice_key("x", ((0, -1),)) == start + b"\x80\x7f"


@st.composite
def cut_up(draw: st.DrawFn) -> tuple[np.ndarray, list[tf1_bundles.Extents]]:
    """An array, and the grid of slices that cuts along each dimension make of it, in any order."""
    shape = draw(st.lists(st.integers(1, 7), min_size=1, max_size=3))
    axes: list[list[tuple[int, int] | None]] = []
    for width in shape:
        ends = sorted(draw(st.sets(st.integers(1, width - 1), max_size=4))) if width > 1 else []
        pairs = [(start, end - start) for start, end in zip([0, *ends], [*ends, width], strict=True)]
        axes.append(list(pairs) if len(pairs) > 1 else [None])
    grid = [list(place) for place in itertools.product(*axes)]
    array = np.arange(math.prod(shape), dtype=np.float32).reshape(shape)
    return array, draw(st.permutations(grid))


@settings(deadline=None)
@given(cut_up())
def test_the_slices_of_a_variable_are_joined(made: tuple[np.ndarray, list[tf1_bundles.Extents]]) -> None:
    array, cuts = made
    with tempfile.TemporaryDirectory() as folder:
        prefix = Path(folder) / "x.ckpt"
        tf1_bundles.write(prefix, {"a": array, "b": array + 1}, {"a": cuts})
        index = read_index(prefix)
        assert list(index.entries) == ["a", "b"]
        found = read_bundle(index)
        assert np.array_equal(found["a"], array)
        assert np.array_equal(found["b"], array + 1)


ARRAY = np.arange(12, dtype=np.float32).reshape(6, 2)


@pytest.mark.parametrize(
    "cuts",
    [
        [[(0, 3), None], [(4, 2), None]],  # a gap
        [[(0, 4), None], [(3, 3), None]],  # twice
        [[(0, 3), None], [(0, 3), None]],
        [[(0, 3), None], [(3, 4), None]],  # beyond the end
        [[(0, 6)]],
    ],
)
def test_slices_that_do_not_make_up_their_variable_are_damage(cuts: list[tf1_bundles.Extents], tmp_path: Path) -> None:
    tf1_bundles.write(tmp_path / "x", {"a": ARRAY}, {"a": cuts})
    with pytest.raises(UserError, match=r"the slices of a \(6, 2\) do not make it up; copy the checkpoint again"):
        read_bundle(read_index(tmp_path / "x"))


def test_a_damaged_slice_is_named(tmp_path: Path) -> None:
    tf1_bundles.write(tmp_path / "x", {"a": ARRAY}, {"a": tf1_bundles.rows(6, 3)})
    shard = tmp_path / "x.data-00000-of-00001"
    raw = bytearray(shard.read_bytes())
    raw[20] ^= 1
    shard.write_bytes(raw)
    with pytest.raises(UserError, match="a, from byte 16, does not match its CRC"):
        read_bundle(read_index(tmp_path / "x"))
    shard.write_bytes(raw[:-1])
    with pytest.raises(UserError, match="is cut off: it has 47 bytes, but a ends at byte 48"):
        read_bundle(read_index(tmp_path / "x"))


def test_a_dtype_that_no_array_has_is_named_where_it_is_wanted(tmp_path: Path) -> None:
    others = {"s": (tf1_bundles.STRING, b"\3abc"), "z": (99, b"zz")}
    tf1_bundles.write(tmp_path / "x", {"a": ARRAY}, others=others)
    index = read_index(tmp_path / "x")
    assert set(read_bundle(index, lambda name: name == "a")) == {"a"}
    for name, dtype in (("s", "string"), ("z", "number 99")):
        with pytest.raises(UserError, match=f"{name} is of dtype {dtype}, which is not read here; save it as float32"):
            read_bundle(index, name.__eq__)


def test_variables_that_lie_over_each_other_are_refused(tmp_path: Path) -> None:
    """A small file whose index would have it read as large as one likes."""
    raw = np.zeros(1 << 10, np.float32).tobytes()
    table = {b"": HEADER} | {
        f"v{number:04d}".encode(): tf1_bundles.entry(tf1_bundles.FLOAT, (1 << 10,), 0, raw) for number in range(50)
    }
    (tmp_path / "x.index").write_bytes(write_table(sorted(table.items())))
    (tmp_path / "x.data-00000-of-00001").write_bytes(raw)
    with pytest.raises(UserError, match="its variables lie over each other: 204,800 bytes"):
        read_bundle(read_index(tmp_path / "x"))


@pytest.mark.parametrize("kind", ["folder", "pipe", "sparse"])
def test_what_is_no_sound_file_is_refused_at_once(kind: str, written: Path) -> None:
    shard = file(written, FILES[1])
    shard.unlink()
    if kind == "folder":
        shard.mkdir()
    elif kind == "pipe":
        os.mkfifo(shard)
    else:
        with shard.open("wb") as made:
            made.truncate(1 << 40)
    with pytest.raises(UserError, match=r"data-00000-of-00001: is (a folder|a named pipe|sparse)"):
        read_bundle(read_index(written))
