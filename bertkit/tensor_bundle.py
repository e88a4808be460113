"""TensorFlow 1's checkpoint files, read and written without TensorFlow: `PREFIX.index` and `PREFIX.data-…-of-…`.

The index is a table (`bertkit.sorted_table`) of protocol buffers by the variable's name, the header under "". The data
shards hold nothing but the values. Format: tensorflow/core/util/tensor_bundle, core/protobuf/tensor_bundle.proto.
"""

from __future__ import annotations

import math
import os
import struct
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import google_crc32c
import numpy as np

from bertkit.disk import write_atomically
from bertkit.errors import UserError
from bertkit.sorted_table import Damaged, mask, read_table, read_varint, varint, write_table

# TensorFlow's numbers of dtypes that NumPy knows; bfloat16 it does not, so its bits are widened to float32
DTYPES = {
    1: "<f4", 2: "<f8", 3: "<i4", 4: "u1", 5: "<i2", 6: "i1", 9: "<i8", 10: "?", 14: "<u2", 17: "<u2", 19: "<f2",
    22: "<u4", 23: "<u8",
}  # fmt: skip
BFLOAT16 = 14
NUMBERS = {np.dtype(name): number for number, name in DTYPES.items() if number != BFLOAT16}
OBJECTS = "_CHECKPOINTABLE_OBJECT_GRAPH"  # what TensorFlow 2's object-based checkpoints hold besides
CHUNK = 1 << 24  # bytes whose CRC is taken at once
COPY = "copy the checkpoint again"


@dataclass(frozen=True)
class Entry:
    """What the index says of one variable."""

    dtype: int  # TensorFlow's number
    shape: tuple[int, ...]
    shard: int
    offset: int
    size: int  # bytes
    crc: int  # masked CRC32C of the bytes


@dataclass(frozen=True)
class Index:
    """An index file: the variables in order of their names."""

    prefix: Path
    shards: int
    entries: Mapping[str, Entry]

    def shard(self, number: int) -> Path:
        return self.prefix.with_name(f"{self.prefix.name}.data-{number:05d}-of-{self.shards:05d}")


def read_index(prefix: Path) -> Index:
    """Raises UserError, in one line with the file, for what is missing, damaged or of another kind."""
    path = prefix.with_name(prefix.name + ".index")
    try:
        table = read_table(path.read_bytes())
        shards = _header(table.pop(b"", b""))
        if OBJECTS.encode() in table:
            raise UserError(
                f"{path}: is an object-based checkpoint of TensorFlow 2, named by the program that wrote it",
                "give the TensorFlow 1 checkpoint of the same model, or its Hugging Face folder",
            )
        return Index(prefix, shards, {name.decode(): _entry(name.decode(), raw) for name, raw in table.items()})
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}", "give PREFIX of PREFIX.index") from None
    except (Damaged, UnicodeDecodeError) as error:
        raise UserError(f"{path}: is damaged or no TensorFlow checkpoint's index: {error}", COPY) from None


def read_bundle(index: Index, wanted: Callable[[str], bool] = lambda name: True) -> dict[str, np.ndarray]:
    """The wanted variables, each checked by its CRC; mapped from the files, bfloat16 widened to float32."""
    shards: dict[int, np.ndarray] = {}
    found = {}
    for name, entry in index.entries.items():
        if wanted(name):
            if entry.shard not in shards:
                shards[entry.shard] = _map(index, entry.shard)
            found[name] = _values(index, name, entry, shards[entry.shard])
    return found


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
    try:
        size = os.stat(path).st_size
        return np.memmap(path, np.uint8, "r") if size else np.empty(0, np.uint8)
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}", f"the index asks for it; {COPY}") from None


def _values(index: Index, name: str, entry: Entry, shard: np.ndarray) -> np.ndarray:
    path, end = index.shard(entry.shard), entry.offset + entry.size
    if end > len(shard):
        raise UserError(f"{path}: is cut off: it has {len(shard)} bytes, but {name} ends at byte {end}", COPY)
    dtype = np.dtype(DTYPES[entry.dtype])
    raw = shard[entry.offset : end]
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


def _number(message: Mapping[int, list[int | bytes]], field: int) -> int:
    value = message.get(field, [0])[-1]
    if not isinstance(value, int):
        raise Damaged(f"field {field} is no number")
    return value


def _header(raw: bytes) -> int:
    """The number of data shards."""
    message = _message(raw)
    if _number(message, 2):
        raise Damaged("its numbers are big-endian")
    shards = _number(message, 1)
    if not 0 < shards < 100_000:
        raise Damaged(f"it says that there are {shards} data shards")
    return shards


def _entry(name: str, raw: bytes) -> Entry:
    message = _message(raw)
    if 7 in message:
        raise Damaged(f"{name} is a variable in slices, which are not read here")
    shape: list[int] = []
    for part in message.get(2, []):
        for field, dimension in _fields(part if isinstance(part, bytes) else b""):
            if field == 2 and isinstance(dimension, bytes):
                shape.append(_number(_message(dimension), 1))
    entry = Entry(_number(message, 1), tuple(shape), *(_number(message, field) for field in (3, 4, 5, 6)))
    if entry.dtype not in DTYPES:
        raise Damaged(f"{name} is of TensorFlow's dtype number {entry.dtype}, which is not read here")
    if entry.size != math.prod(entry.shape) * np.dtype(DTYPES[entry.dtype]).itemsize:
        raise Damaged(f"{name} of shape {entry.shape} has {entry.size} bytes")
    return entry


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
