"""TensorFlow 1's checkpoint files, read and written without TensorFlow: `PREFIX.index` and `PREFIX.data-…-of-…`.

The index is a table (`tf1_table`) of protocol buffers by the variable's name, the header under "". The data
shards hold nothing but the values. Format: tensorflow/core/util/tensor_bundle, core/protobuf/tensor_bundle.proto; of a
partitioned variable's slices core/framework/tensor_slice.proto, core/util/saved_tensor_slice_util.cc and
core/lib/strings/ordered_code.cc.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import google_crc32c
import numpy as np

from bertkit.errors import UserError
from bertkit.files.disk import check_sparse, write_atomically
from bertkit.files.inputs import check_file, read_bytes
from bertkit.model.formats.tf1_table import Damaged, Unsupported, mask, read_table, read_varint, varint, write_table

# TensorFlow's numbers of dtypes that NumPy knows; bfloat16 it does not, so its bits are widened to float32
DTYPES = {
    1: "<f4", 2: "<f8", 3: "<i4", 4: "u1", 5: "<i2", 6: "i1", 9: "<i8", 10: "?", 14: "<u2", 17: "<u2", 19: "<f2",
    22: "<u4", 23: "<u8",
}  # fmt: skip
BOOL, BFLOAT16 = 10, 14
NUMBERS = {np.dtype(name): number for number, name in DTYPES.items() if number != BFLOAT16}
# the others by name, framework/types.proto
OTHER_DTYPES = {
    7: "string", 8: "complex64", 11: "qint8", 12: "quint8", 13: "qint32", 15: "qint16", 16: "quint16",
    18: "complex128", 20: "resource", 21: "variant", 24: "float8_e5m2", 25: "float8_e4m3fn", 29: "int4", 30: "uint4",
}  # fmt: skip
Extents = tuple[tuple[int, int], ...]  # (start, length) of a slice in each dimension
FULL = (0, -1)  # a dimension that a slice has whole
OBJECTS = "_CHECKPOINTABLE_OBJECT_GRAPH"  # what TensorFlow 2's object-based checkpoints hold besides
CHUNK = 1 << 24  # bytes whose CRC is taken at once
MOST = 1 << 28  # bytes of an index: one that is meant has a few hundred thousand
MOST_DIMENSIONS = 254  # TensorFlow's own bound
COPY = "copy the checkpoint again"
SHARD = f"the index asks for it; {COPY}"


@dataclass(frozen=True)
class BundleEntry:
    """What the index says of one variable, or of one slice."""

    dtype: int  # TensorFlow's number
    shape: tuple[int, ...]
    shard: int
    offset: int
    size: int  # bytes
    crc: int  # masked CRC32C of the bytes
    slices: tuple[Extents, ...] = ()  # of a partitioned variable, whose values are those of its slices

    @property
    def dtype_name(self) -> str:
        known = DTYPES.get(self.dtype)
        return np.dtype(known).name if known else OTHER_DTYPES.get(self.dtype, f"number {self.dtype}")

    @property
    def is_read(self) -> bool:
        return self.dtype in DTYPES


@dataclass(frozen=True)
class Index:
    """An index file: the variables in order of their names."""

    prefix: Path
    shards: int
    entries: Mapping[str, BundleEntry]
    slices: Mapping[bytes, BundleEntry] = field(default_factory=dict)  # by `slice_key`

    def shard(self, number: int) -> Path:
        return self.prefix.with_name(f"{self.prefix.name}.data-{number:05d}-of-{self.shards:05d}")


def read_index(prefix: Path) -> Index:
    """Raises UserError, in one line with the file, for what is missing, damaged or of another kind."""
    path = prefix.with_name(prefix.name + ".index")
    raw = read_bytes(path, "give PREFIX of PREFIX.index", MOST)
    try:
        table = read_table(raw)
        shards = _header(table.pop(b"", b""))
        if OBJECTS.encode() in table:
            raise UserError(
                f"{path}: is an object-based checkpoint of TensorFlow 2, named by the program that wrote it",
                "give the TensorFlow 1 checkpoint of the same model, or its Hugging Face folder",
            )
        parsed = {key: _entry(key.decode("utf-8", "replace"), value) for key, value in table.items()}
        keys = {slice_key(key.decode(), extents) for key, entry in parsed.items() for extents in entry.slices}
        whole = {key.decode(): entry for key, entry in parsed.items() if key not in keys}
        return Index(prefix, shards, whole, {key: entry for key, entry in parsed.items() if key in keys})
    except Unsupported as error:
        raise UserError(f"{path}: is not read here: {error}", "save it anew with TensorFlow's tf.train.Saver") from None
    except (Damaged, UnicodeDecodeError) as error:
        raise UserError(f"{path}: is damaged or no TensorFlow checkpoint's index: {error}", COPY) from None


def read_bundle(index: Index, wanted: Callable[[str], bool] = lambda name: True) -> dict[str, np.ndarray]:
    """The wanted variables, each checked by its CRC; mapped from the files, bfloat16 widened to float32.

    The slices of a partitioned variable are joined. Raises UserError for one of a dtype that is not read.
    """
    shards: dict[int, np.ndarray] = {}

    def values(name: str, entry: BundleEntry) -> np.ndarray:
        if entry.shard not in shards:
            shards[entry.shard] = _map(index, entry.shard)
        return _values(index, name, entry, shards[entry.shard])

    entries = {name: entry for name, entry in index.entries.items() if wanted(name)}
    _check_room(index, entries)
    found = {}
    for name, entry in entries.items():
        found[name] = _joined(index, name, entry, values) if entry.slices else values(name, entry)
    return found


def _check_room(index: Index, entries: Mapping[str, BundleEntry]) -> None:
    """Raises UserError for a dtype that is not read, and where the variables are more than the files can hold."""
    for name, entry in entries.items():
        if not entry.is_read:
            raise UserError(
                f"{index.prefix}.index: {name} is of dtype {entry.dtype_name}, which is not read here",
                "save it as float32",
            )
    parts = [(name, part) for name, entry in entries.items() for part in _parts(index, name, entry)]
    numbers = {part.shard for _, part in parts}
    sizes = {number: check_file(index.shard(number), SHARD) for number in numbers if 0 <= number < index.shards}
    for name, part in parts:
        if part.shard in sizes:
            _check_end(index, name, part, sizes[part.shard])
    size = sum(part.size for _, part in parts)
    if size > sum(sizes.values()) and sizes.keys() == numbers:
        raise UserError(f"{index.prefix}.index: its variables lie over each other: {size:,} bytes of them", COPY)


def _parts(index: Index, name: str, entry: BundleEntry) -> list[BundleEntry]:
    """The variable itself, or those of its slices that are there."""
    if not entry.slices:
        return [entry]
    found = (index.slices.get(slice_key(name, extents)) for extents in entry.slices)
    return [part for part in found if part]


def _check_end(index: Index, name: str, entry: BundleEntry, size: int) -> None:
    end = entry.offset + entry.size
    if end > size:
        path = index.shard(entry.shard)
        raise UserError(f"{path}: is cut off: it has {size} bytes, but {name} ends at byte {end}", COPY)


def _joined(
    index: Index, name: str, whole: BundleEntry, values: Callable[[str, BundleEntry], np.ndarray]
) -> np.ndarray:
    """A partitioned variable in one piece. Raises UserError where its slices are not all there, once each."""
    parts = _parts(index, name, whole)
    places = [place_of(extents, whole.shape) for extents in whole.slices]
    sound = (
        len(parts) == len(places)
        and sum(part.size for part in parts) == whole.size
        and all(part.dtype == whole.dtype for part in parts)
        and all(place and part.shape == widths(place) for part, place in zip(parts, places, strict=True))
    )
    if sound:
        read = [values(name, part) for part in parts]
        made, filled = np.empty(whole.shape, read[0].dtype), np.zeros(whole.shape, bool)
        for place, array in zip(places, read, strict=True):
            made[place], filled[place] = array, True
        if filled.all():
            return made
    raise UserError(f"{index.prefix}.index: the slices of {name} {whole.shape} do not make it up", COPY)


def write_bundle(prefix: Path, arrays: Mapping[str, np.ndarray]) -> list[Path]:
    """Write one data shard, then the index; TensorFlow reads them, and writes the same bytes. The files written."""
    entries: list[tuple[bytes, bytes]] = [(b"", _field(1, 1) + _field(3, _field(1, 1)))]  # one shard, version 1
    index = Index(prefix, 1, {})
    names = sorted(arrays, key=str.encode)

    def fill(temporary: Path) -> None:
        offset = 0
        with temporary.open("wb") as file:
            for name in names:
                array = np.asarray(arrays[name])
                raw = array.tobytes()
                entries.append((name.encode(), _packed(name, array, offset, len(raw), mask(google_crc32c.value(raw)))))
                file.write(raw)
                offset += len(raw)

    write_atomically(index.shard(0), fill)
    path = prefix.with_name(prefix.name + ".index")
    write_atomically(path, lambda temporary: temporary.write_bytes(write_table(entries)))
    return [index.shard(0), path]


def _map(index: Index, number: int) -> np.ndarray:
    path = index.shard(number)
    if not 0 <= number < index.shards:
        raise UserError(f"{index.prefix}.index: names shard {number} of {index.shards}", COPY)
    size = check_file(path, SHARD)
    check_sparse(path, size)
    try:
        return np.memmap(path, np.uint8, "r") if size else np.empty(0, np.uint8)
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: cannot be mapped: {error}", COPY) from None


def _values(index: Index, name: str, entry: BundleEntry, shard: np.ndarray) -> np.ndarray:
    _check_end(index, name, entry, len(shard))
    path = index.shard(entry.shard)
    dtype = np.dtype(DTYPES[entry.dtype])
    raw = shard[entry.offset : entry.offset + entry.size]
    crc = 0
    for start in range(0, len(raw), CHUNK):
        crc = google_crc32c.extend(crc, raw[start : start + CHUNK].tobytes())
    if mask(crc) != entry.crc:
        raise UserError(f"{path}: {name}, from byte {entry.offset}, does not match its CRC", COPY)
    values: np.ndarray = np.frombuffer(raw, dtype).reshape(entry.shape)
    if entry.dtype == BFLOAT16:
        return (values.astype(np.uint32) << 16).view(np.float32)
    return values


def _fields(data: bytes) -> Iterator[tuple[int, int | bytes]]:
    """(number, value) of a message's fields: varints and 32-bit numbers as int, the rest as bytes."""
    place = 0
    while place < len(data):
        tag, place = read_varint(data, place)
        if tag & 7 == 0:
            number, place = read_varint(data, place)
            yield tag >> 3, number
            continue
        size = 4
        if tag & 7 == 2:
            size, place = read_varint(data, place)
        elif tag & 7 != 5:
            raise Damaged(f"a field of wire type {tag & 7}")
        if place + size > len(data):
            raise Damaged("a field reaches beyond its message")
        part = data[place : place + size]
        yield tag >> 3, part if tag & 7 == 2 else int(struct.unpack("<I", part)[0])
        place += size


def _message(data: bytes) -> dict[int, list[int | bytes]]:
    found: dict[int, list[int | bytes]] = {}
    for number, value in _fields(data):
        found.setdefault(number, []).append(value)
    return found


def _number(message: Mapping[int, list[int | bytes]], number: int) -> int:
    value = message.get(number, [0])[-1]
    if not isinstance(value, int):
        raise Damaged(f"field {number} is no number")
    return value


def _header(raw: bytes) -> int:
    """The number of data shards."""
    message = _message(raw)
    if _number(message, 2):
        raise Unsupported("its numbers are big-endian")
    shards = _number(message, 1)
    if not 0 < shards < 100_000:
        raise Damaged(f"it says that there are {shards} data shards")
    return shards


def _entry(name: str, raw: bytes) -> BundleEntry:
    message = _message(raw)
    shape: list[int] = []
    for part in message.get(2, []):
        for number, dimension in _fields(part if isinstance(part, bytes) else b""):
            if number == 2 and isinstance(dimension, bytes):
                shape.append(_number(_message(dimension), 1))
    slices = tuple(_extents(part) for part in message.get(7, []))
    shard, offset, length, crc = (_number(message, number) for number in (3, 4, 5, 6))
    entry = BundleEntry(_number(message, 1), tuple(shape), shard, offset, length, crc, slices)
    if len(shape) > MOST_DIMENSIONS or any(width >= 1 << 63 for width in shape):
        raise Damaged(f"{name} has dimensions of unknown number or size")
    if not entry.is_read:
        return entry
    size = math.prod(entry.shape) * np.dtype(DTYPES[entry.dtype]).itemsize
    if slices:
        return replace(entry, size=size)  # TensorFlow leaves it out: the values are those of the slices
    if entry.size != size:
        raise Damaged(f"{name} of shape {entry.shape} has {entry.size} bytes")
    return entry


def _extents(raw: int | bytes) -> Extents:
    """A slice's extents (framework/tensor_slice.proto); one without a length is the whole dimension."""
    if isinstance(raw, int):
        raise Damaged("a slice is a number")
    found = []
    for number, extent in _fields(raw):
        if number == 1 and isinstance(extent, bytes):
            message = _message(extent)
            found.append((_number(message, 1), _number(message, 2)) if 2 in message else FULL)
    if any(number >= 1 << 63 for extent in found for number in extent):
        raise Damaged("a slice begins or ends nowhere")
    return tuple(found)


def _field(number: int, value: int | bytes) -> bytes:
    """A field; a number that is 0 is left out, as protocol buffers have it."""
    if isinstance(value, bytes):
        return varint(number << 3 | 2) + varint(len(value)) + value
    return varint(number << 3) + varint(value) if value else b""


def _packed(name: str, array: np.ndarray, offset: int, size: int, crc: int) -> bytes:
    if array.dtype not in NUMBERS:
        raise UserError(f"{name} is of dtype {array.dtype}, which is not written here", "give it as float32")
    shape = b"".join(_field(2, _field(1, width)) for width in array.shape)
    return (
        _field(1, NUMBERS[array.dtype]) + _field(2, shape) + _field(4, offset) + _field(5, size)
        + varint(6 << 3 | 5) + struct.pack("<I", crc)
    )  # fmt: skip


# ---- slices of a partitioned variable: where they lie in it, and their keys in the index ----


def place_of(extents: Extents, shape: Sequence[int]) -> tuple[slice, ...]:
    """Where a slice lies in a variable of this shape; nothing where it lies outside."""
    if len(extents) != len(shape):
        return ()
    ends = [
        (start, start + (width if length < 0 else length))
        for (start, length), width in zip(extents, shape, strict=True)
    ]
    if not all(0 <= start <= end <= width for (start, end), width in zip(ends, shape, strict=True)):
        return ()
    return tuple(slice(start, end) for start, end in ends)


def widths(place: Sequence[slice]) -> tuple[int, ...]:
    return tuple(part.stop - part.start for part in place)


def slice_key(name: str, extents: Extents) -> bytes:
    """The key of a slice in the index; keys sort as the numbers in them do."""
    made = b"\0" + name.encode().replace(b"\0", b"\0\xff") + b"\0\1" + _ordered(len(extents))
    return made + b"".join(_ordered_signed(start) + _ordered_signed(length) for start, length in extents)


def _ordered(number: int) -> bytes:
    """A number from 0 on, its length first."""
    raw = number.to_bytes((number.bit_length() + 7) // 8, "big")
    return bytes([len(raw)]) + raw


def _ordered_signed(number: int) -> bytes:
    """A signed number in as few bytes as hold it behind as many ones as bytes; all turned over for negative ones."""
    size = next(size for size in range(1, 11) if -(1 << (7 * size - 1)) <= number < 1 << (7 * size - 1))
    header = ((1 << size) - 1) << (7 * size)
    return ((number & ((1 << 8 * size) - 1)) ^ header).to_bytes(size, "big")
